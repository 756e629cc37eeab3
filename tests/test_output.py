"""What the library prints never stops a training, whatever stdout is."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest

from colabcnn import output

TRAINING = """
import sys
from dataclasses import replace
import numpy as np, keras, colabcnn
folder = sys.argv[1]
{before}
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
drive = colabcnn.CheckpointToDrive(folder + "/drive", local_folder=folder + "/local", checkpoint_minutes=0)
model.fit(np.ones((32, 6)), np.ones((32, 1)), epochs=2, verbose=0, callbacks=[drive])
tiny = replace(colabcnn.ABLATIONS["06_final"], name="tiny", filters=(4, 8), kernel_sizes=(3,), batch_size=32)
result = colabcnn.run(tiny, folder + "/run", data="synthetic", train_size=64, val_size=32, epochs=2)
assert result.complete
"""


@pytest.mark.kill
@pytest.mark.parametrize("stdout", ["ascii", "closed", "none", "full", "no reader"])
def test_training_continues(tmp_path, stdout):
    before = {"closed": "sys.stdout.close()", "none": "sys.stdout = None"}.get(stdout, "")
    command = [sys.executable, "-c", TRAINING.format(before=before), str(tmp_path / "学習")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii" if stdout == "ascii" else "utf-8"}
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full" if stdout == "full" else os.devnull, "w") as file:
        target = writer if stdout == "no reader" else subprocess.PIPE if stdout == "ascii" else file
        done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, env=environment, text=True)
    os.close(writer)
    # At its own end Python reports a full stdout, by 120; ours has come to its end then.
    assert done.returncode == 0 or (stdout == "full" and done.returncode == 120), done.stderr
    if stdout == "ascii":
        assert "/??/run" in done.stdout
        assert "Epoch 2 of 2" not in done.stderr


NOTICES = """
from colabcnn import output
output.drop_notices()
import os, sys
import tensorflow as tf
tf.function(lambda x: 2 * x, jit_compile=True)(tf.ones(3))
print("from Python", file=sys.stderr)
os.write(2, b"E0000 00:00:1.5 18 x.cc:5] from C++\\n")
try:
    tf.ones((1 << 20, 1 << 20))
except tf.errors.ResourceExhaustedError as error:
    print(error.message[-200:], file=sys.stderr)
os.write(2, b"the last words")
os.abort()
"""


@pytest.mark.versions
def test_tensorflows_notices_are_dropped_and_all_else_reaches_stderr_even_in_a_crash():
    pytest.importorskip("tensorflow", reason="the notices are TensorFlow's")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", NOTICES], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGABRT, done.stderr
    lines = done.stderr.splitlines()
    assert {"from Python", "E0000 00:00:1.5 18 x.cc:5] from C++", "the last words"} < set(lines)
    assert "OOM when allocating" in done.stderr
    assert not [line for line in lines if re.match(output.NOTICE, line)]


def test_notices_of_a_level_that_the_user_set_are_kept():
    code = "from colabcnn import output; output.drop_notices(); import os; os.write(2, b'I0000 00:00:1.5 18 x.cc:5] a')"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == "I0000 00:00:1.5 18 x.cc:5] a"


def test_character_that_an_encoding_lacks_is_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    output.write("Zürich · 学習", stream=stream)
    stream.seek(0)
    assert stream.read() == "Zürich · ??\n"


def test_closed_stream_drops_the_text():
    stream = io.StringIO()
    stream.close()
    output.write("lost", stream=stream)


def test_missing_stdout_drops_the_text(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    output.write("lost")
