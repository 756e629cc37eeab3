"""Shared by the tests: real data if it is there, a small experiment, and runs in processes of their own."""

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
WORKER = Path(__file__).parent / "worker.py"


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


@pytest.fixture
def start_worker():
    """Start `worker.py` on a run's folder; whatever is still running at the end is killed."""
    started = []

    def start_worker(run_dir, env=None, **options):
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(run_dir), json.dumps(options)],
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start_worker
    for process in started:
        process.kill()
        process.communicate()
