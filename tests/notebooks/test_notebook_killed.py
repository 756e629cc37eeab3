"""A notebook whose kernel was killed in the middle goes on with the same run when all of its cells are run again."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from colabcnn.store.history import read_history
from support.notebook_runs import command, execute, make_project

pytest.importorskip("papermill", reason="Papermill is not installed: pip install papermill")

pytestmark = pytest.mark.versions


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def test_killed_kernels_run_goes_on(project, tmp_path):
    history = project / "drive" / "06_final" / "seed-7" / "history.csv"
    here = project / "notebooks" / "runs" / "06_final" / "seed-7"
    arguments = command(project, "06_final", tmp_path / "killed.ipynb", EPOCHS=500, SEED=7, TRAIN_SIZE=64, VAL_SIZE=10)
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as notebook:
        deadline = time.monotonic() + 300
        while not list(here.glob("checkpoints/*.safetensors")):
            assert notebook.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for kernel in children(notebook.pid):
            os.kill(kernel, signal.SIGKILL)
        notebook.terminate()
    done = len(read_history(here / "history.csv")["epoch"])
    assert 0 < done < 500
    execute(project, "06_final", tmp_path, EPOCHS=done + 2, SEED=7, TRAIN_SIZE=64, VAL_SIZE=10)
    assert read_history(history)["epoch"] == list(range(1, done + 3))
    starts = json.loads((here / "run.json").read_text())["starts"]
    assert [start["first_epoch"] > 1 for start in starts] == [False, True]


def children(pid):
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(listed).split()]
