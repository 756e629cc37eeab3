"""Shared by the tests: real data if it is there, a small experiment, and sessions in their own processes."""

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

import colabcnn
from colabcnn import RECIPES, output
from support.file_server import FileServer
from support.forked_sessions import Sessions
from support.shared_files import COMPLETE, EXPERIMENT, OPTIONS

SUPPORT = Path(__file__).parent / "support"
# The fixtures that set a test's marker; a test with no such fixture sets its own.
MARKER_OF = {"mount": "fuse", "mount_tmpfs": "fuse"}
MARKER_OF |= dict.fromkeys(("sessions_on", "run_cli", "small_options", "trained"), "kill")
# Modules of few tests that take long are distributed first; a worker with nothing left to do would wait for them.
LONG = (
    "test_killed",
    "test_sweeps",
    "test_recipe_runs",
    "test_fit_state",
    "test_execution",
    "test_notebook_killed",
    "test_notebooks",
)
LONG += (
    "test_resume",
    "test_explorer_notebook",
    "test_explorer_page",
    "test_training",
    "test_checkpoint_to_drive",
    "test_faults",
    "test_setup_cell",
    "test_cli",
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the command line does: among TensorFlow's many objects, a look for unused ones takes long.
gc.set_threshold(100_000)
# A test that calls the command line in this process leaves its stderr to pytest.
output.drop_notices.grep = None
# Neither the user's settings of Keras and IPython, nor files of theirs in the user's home folder.
_home = tempfile.TemporaryDirectory(prefix="colabcnn-home-")
os.environ |= {"KERAS_HOME": f"{_home.name}/keras", "IPYTHONDIR": f"{_home.name}/ipython"}
# The tests train the same small network many times, often in a new process; under JAX, compilation takes most of the
# time. The session has its own cache unless the caller names one.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="colabcnn-jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# XLA needs three times as long to optimize a small network as to compile it. A variable that is set, even to nothing,
# is kept; notebooks run without this one.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_collection_modifyitems(items):
    """Put the tests that take long first, and mark each test by the fixtures that it uses."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        for name in MARKER_OF.keys() & set(item.fixturenames):
            item.add_marker(MARKER_OF[name])
        marks = {mark.name for mark in item.iter_markers()}
        if "colab" in marks and ("newest" in marks or "versions" not in marks):
            raise pytest.UsageError(f"{item.nodeid} is marked colab; expected versions beside it, and not newest.")


def pytest_terminal_summary(terminalreporter):
    """Print the numbers that tests counted."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "counted" and report.when == "call":
                terminalreporter.write_line(text)


@pytest.fixture
def shell():
    """IPython's shell, as in a notebook, for this test only."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()


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
    from colabcnn.data.cifar10 import load_cifar10

    return load_cifar10(cifar10_folder)[0][0][:1200]


@pytest.fixture
def small_experiment():
    """The final network with one convolution a set and two sets, without augmentation and dropout: quick."""
    return EXPERIMENT


@pytest.fixture
def small_recipe():
    """The recipe of ten epochs with a network that Muon, Adam and Dirac's filters all have a part in, and quick."""
    return replace(RECIPES["08_in_minutes"], name="small", kernel_sizes=(1, 3), filters=(4, 8), batch_size=16, epochs=3)


@pytest.fixture
def small_options():
    """A run of 7 steps an epoch, whose last batch is smaller than the others."""
    return {"data": "synthetic", "train_size": 100, "val_size": 40, "epochs": 3, "checkpoint_minutes": 0, "quiet": True}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of two epochs; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "small" / "seed-0"
    colabcnn.run(COMPLETE, folder, epochs=2, **OPTIONS)
    return folder


@pytest.fixture(scope="session")
def shared(trained, tmp_path_factory):
    """The bytes of the file that `export` writes of that run."""
    path = tmp_path_factory.mktemp("shared") / "run.safetensors"
    sha256 = colabcnn.export(trained, path, quiet=True)
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == sha256
    return content


@pytest.fixture
def few_test_images(monkeypatch):
    """Let `evaluate`, which asks for the complete test set, get 500 of its 10,000 synthetic images."""
    from colabcnn.inspection import evaluation

    load_data = evaluation.load_data
    monkeypatch.setattr(evaluation, "load_data", lambda data, size: load_data(data, size=size, test_size=500))


@pytest.fixture(scope="session")
def file_server(tmp_path_factory):
    server = FileServer(tmp_path_factory.mktemp("authority"))
    yield server
    server.close()


@pytest.fixture
def server(file_server, monkeypatch):
    """A `FileServer` without files, to which gdown connects."""
    for name, value in file_server.environment().items():
        monkeypatch.setenv(name, value)
    file_server.files.clear()
    file_server.requests.clear()
    gc.freeze()  # What is there already, as all of TensorFlow, would take a second to look through.
    yield file_server
    gc.collect()  # gdown 5.2 leaves the connection of a download that failed to the garbage collector.
    gc.unfreeze()


@pytest.fixture
def offered(server):
    """Return a function that puts a file on the server and returns its URL."""

    def offered(content):
        server.files["/run.safetensors"] = content
        return f"{server.address}/run.safetensors"

    return offered


@pytest.fixture
def run_cli():
    """Return a function that runs the command line in a new process."""

    def run_cli(*arguments, env=None, timeout=300, **options):
        command = [sys.executable, "-m", "colabcnn", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout, **options
        )

    return run_cli


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
        sessions.close()


class Mount:
    """A mounted `faulty_drive.py`; `files` is the folder behind it."""

    def __init__(self, folder):
        self.files, self.path, self.control = folder / "backing", folder / "mount", folder / "control.json"
        self.files.mkdir()
        self.path.mkdir()
        self.faults()
        self.mount()

    def mount(self):
        command = [
            sys.executable,
            str(SUPPORT / "faulty_drive.py"),
            str(self.files),
            str(self.path),
            str(self.control),
        ]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not os.path.ismount(self.path):
            assert self.server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def faults(self, **faults):
        partial = self.control.with_suffix(".partial")
        partial.write_text(json.dumps(faults))
        partial.replace(self.control)

    def kill(self):
        """Leave a mount where every call fails with errno 107."""
        self.server.kill()
        self.server.wait()

    def unmount(self):
        """Leave a plain folder."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=False, stderr=subprocess.DEVNULL)
        self.server.wait(timeout=30)

    def written_bytes(self):
        return sum(map(int, self.control.with_suffix(".written").read_text().split()))

    def trashed_bytes(self):
        return sum(path.stat().st_size for path in (self.files / ".trash").iterdir())


@pytest.fixture
def mount(tmp_path):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
        pytest.skip("no FUSE here: /dev/fuse and Debian's fuse3 are needed")
    mount = Mount(tmp_path)
    yield mount
    mount.faults()
    mount.unmount()


@pytest.fixture
def mount_tmpfs(tmp_path):
    """Mount a small file system of the test's own."""
    mounted = []

    def mount_tmpfs(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).returncode:
            pytest.skip("mounting a tmpfs needs root")
        mounted.append(folder)
        return folder

    yield mount_tmpfs
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
