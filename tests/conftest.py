"""Shared by the tests: real data if it is there, a small experiment, and sessions in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from colabcnn.experiments import ABLATIONS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The tests train the same small network again and again, many in a process of its own; under JAX the compilation is
# most of the time. The cache is the session's own unless the caller names one.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="colabcnn-jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


@pytest.fixture(scope="session")
def cifar10_folder():
    folder = os.environ.get("CIFAR10_DIR")
    if not folder:
        pytest.skip("CIFAR10_DIR is not set: this test needs the real CIFAR-10 files")
    folder = Path(folder)
    inner = folder / "cifar-10-batches-py"
    return inner if inner.is_dir() else folder


@pytest.fixture(scope="session")
def real_images(cifar10_folder):
    from colabcnn.data import load_cifar10

    return load_cifar10(cifar10_folder)[0][0][:1200]


@pytest.fixture
def small_experiment():
    """The final network with fewer filters: dropout, BatchNorm and augmentation all on, and quick."""
    return replace(ABLATIONS["06_final"], name="small", filters=(4, 4, 8), batch_size=16)


@pytest.fixture
def small_options():
    """A run of 7 steps an epoch, whose last batch is smaller than the others."""
    return {"data": "synthetic", "train_size": 100, "val_size": 40, "epochs": 3, "checkpoint_minutes": 0, "quiet": True}


@pytest.fixture
def run_cli():
    """Run the command line in a process of its own."""

    def run_cli(*arguments, env=None, timeout=300, **options):
        command = [sys.executable, "-m", "colabcnn", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout, **options
        )

    return run_cli


class Sessions:
    """Sessions of a small run, each in a process that `sessions.py` forks, so that Keras is imported once."""

    def __init__(self, backend):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "sessions.py")],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, run_dir, *, kill=None, altered_epoch=None, **options):
        """Begin a session of `run` with these options; see `sessions.py`."""
        request = {"run": {"run_dir": str(run_dir), **options}, "kill": kill, "altered_epoch": altered_epoch}
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def finish(self):
        """Wait for the session's end; return its exit status and what it printed."""
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["output"]

    def __call__(self, run_dir, *, ends=0, **options):
        """Run a session, see that it ends as it should (negative for a signal), and return what it printed."""
        self.start(run_dir, **options)
        status, output = self.finish()
        assert status == ends, output
        return output


@pytest.fixture(scope="module")
def sessions_on():
    """Return a function from a backend to its `Sessions`."""
    started = {}

    def sessions_on(backend):
        if backend not in started:
            started[backend] = Sessions(backend)
        return started[backend]

    yield sessions_on
    for sessions in started.values():
        sessions.process.stdin.close()
        sessions.process.wait(timeout=60)
