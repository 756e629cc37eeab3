"""A run that TensorFlow trained is handed on to a machine that has JAX only: Colab's GPU runtime to its TPU runtime.

Where this environment has no TensorFlow, `TENSORFLOW_PYTHON` names the interpreter of one that has.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from file_server import FileServer

pytestmark = pytest.mark.versions

HERE = importlib.util.find_spec("tensorflow") is not None
TENSORFLOW_PYTHON = os.environ.get("TENSORFLOW_PYTHON", sys.executable if HERE else None)
EXPERIMENT = "replace(ABLATIONS['06_final'], name='small', kernel_sizes=(3,), filters=(4, 4, 8), batch_size=16)"
PREDICT = """
import sys
from dataclasses import replace
import keras, numpy as np
from colabcnn import ABLATIONS, export, fetch, load_model, run
assert keras.backend.backend() == BACKEND
def save_predictions(run_dir, path):
    images = np.random.default_rng(0).random((64, 32, 32, 3), dtype=np.float32)
    np.save(path, load_model(run_dir).predict(images, verbose=0))
OPTIONS = {"data": "synthetic", "train_size": 100, "val_size": 40, "precision": "float32", "quiet": True}
"""
TRAIN = """
run(EXPERIMENT, "trained/small/seed-0", epochs=2, **OPTIONS)
export("trained/small/seed-0", "plain.zip", quiet=True)
export("trained/small/seed-0", "whole.zip", checkpoint=True, quiet=True)
save_predictions("trained/small/seed-0", "trained.npy")
"""
FETCH = """
plain, whole = (fetch(f"{sys.argv[1]}/{name}", folder="fetched", quiet=True) for name in ("plain", "whole"))
save_predictions(plain, "plain.npy")
save_predictions(whole, "whole.npy")
result = run(EXPERIMENT, whole, epochs=3, **OPTIONS)
print(len(result.history["epoch"]), result.complete)
"""


@pytest.mark.skipif(not TENSORFLOW_PYTHON, reason="no TensorFlow here, and TENSORFLOW_PYTHON names none")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_run_of_tensorflow_predicts_the_same_and_goes_on_under_jax(tmp_path):
    def python(interpreter, backend, body, *arguments):
        code = PREDICT.replace("BACKEND", repr(backend)) + body.replace("EXPERIMENT", EXPERIMENT)
        environment = {**os.environ, "KERAS_BACKEND": backend}
        done = subprocess.run(
            [interpreter, "-c", code, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    python(TENSORFLOW_PYTHON, "tensorflow", TRAIN)
    server = FileServer(tmp_path)
    try:
        server.files |= {f"/{name}": (tmp_path / f"{name}.zip").read_bytes() for name in ("plain", "whole")}
        assert python(sys.executable, "jax", FETCH, server.address) == "3 True\n"
    finally:
        server.close()
    trained, plain, whole = (np.load(tmp_path / f"{name}.npy") for name in ("trained", "plain", "whole"))
    np.testing.assert_allclose(plain, trained, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(plain, whole)
    starts = json.loads(next((tmp_path / "fetched").glob("small/*/checkpoints/../run.json")).read_text())["starts"]
    assert ["tensorflow" in start["versions"] for start in starts] == [True, False]
