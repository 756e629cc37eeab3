"""What the library prints never stops a training, whatever stdout is."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from colabcnn import output

# Each training is in a process of its own, which is forked so that Keras and Matplotlib are imported once.
TRAININGS = """
import gc, io, json, os, sys
from dataclasses import replace
import numpy as np, keras, colabcnn
from matplotlib import figure
from colabcnn import run
figure.Figure().savefig(io.BytesIO())
gc.freeze()
folder, statuses = sys.argv[1], {}
for kind in ("ascii", "closed", "none", "full", "no reader"):
    path = folder + "/" + kind
    os.mkdir(path)
    child = os.fork()
    if not child:
        break
    statuses[kind] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
else:
    print(json.dumps(statuses))
    sys.exit()

reader, no_reader = os.pipe()
os.close(reader)
targets = {"ascii": path + "/stdout", "full": "/dev/full"}
target = os.open(targets.get(kind, os.devnull), os.O_WRONLY | os.O_CREAT)
os.dup2(no_reader if kind == "no reader" else target, 1)
os.dup2(os.open(path + "/stderr", os.O_WRONLY | os.O_CREAT), 2)
sys.stdout.reconfigure(encoding="ascii" if kind == "ascii" else "utf-8")
if kind == "closed":
    sys.stdout.close()
if kind == "none":
    sys.stdout = None
folder = path + "/学習"
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
drive = colabcnn.CheckpointToDrive(folder + "/drive", local_folder=folder + "/local", checkpoint_minutes=0)
model.fit(np.ones((32, 6)), np.ones((32, 1)), epochs=2, verbose=0, callbacks=[drive])
plain = colabcnn.ABLATIONS["01_descending_kernels"]
tiny = replace(plain, name="tiny", filters=(4, 8), kernel_sizes=(3,), batch_size=32)
result = run(tiny, folder + "/run", data="synthetic", train_size=64, val_size=32, epochs=2)
assert result.complete
"""


@pytest.mark.kill
def test_training_continues_on_any_stdout(tmp_path):
    command = [sys.executable, "-c", TRAININGS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # At its own end Python reports what is still in stdout's buffer, by 120; ours has come to its end then.
    errors = {path.parent.name: path.read_text() for path in tmp_path.glob("*/stderr")}
    for kind, status in json.loads(done.stdout).items():
        assert status == 0 or (kind in ("full", "no reader") and status == 120), errors[kind]
        assert (tmp_path / kind / "学習" / "run" / "model.keras").exists()
    assert "/??/run" in (tmp_path / "ascii" / "stdout").read_text()
    assert "Epoch 2 of 2" not in errors["ascii"]


NOTICES = """
from colabcnn import output
output.drop_notices()
import os, sys
import tensorflow as tf
tf.function(lambda x: 2 * x, jit_compile=True)(tf.ones(3))
print("from Python", file=sys.stderr)
os.write(2, b"E0000 00:00:1.5 18 x.cc:5] from C++\\n")
os.write(2, b"E0000 00:00:1.5 18 x.cc:5] Unable to register cuDNN factory: it is there already\\n")
try:
    tf.ones((1 << 20, 1 << 20))
except tf.errors.ResourceExhaustedError as error:
    print(error.message[-200:], file=sys.stderr)
os.write(2, b"the last words")
os.abort()
"""


@pytest.mark.kill
@pytest.mark.versions
@pytest.mark.parametrize("level", [pytest.param(None, marks=pytest.mark.colab), "1"])
def test_tensorflows_notices_are_dropped_and_all_else_reaches_stderr_even_in_a_crash(level):
    pytest.importorskip("tensorflow", reason="the notices are TensorFlow's")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    done = subprocess.run([sys.executable, "-c", NOTICES], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGABRT, done.stderr
    lines = done.stderr.splitlines()
    assert {"from Python", "E0000 00:00:1.5 18 x.cc:5] from C++", "the last words"} < set(lines)
    assert "OOM when allocating" in done.stderr
    assert not [line for line in lines if re.match(output.NOTICE, line)]


def test_notices_are_kept_if_the_user_asks_for_all():
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
