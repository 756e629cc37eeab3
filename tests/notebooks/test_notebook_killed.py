"""After its kernel was killed, a notebook resumes the same run when all its cells run again."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from colabcnn.store.history import read_history
from support.notebook_runs import ENVIRONMENT, command, execute, make_project

pytest.importorskip("papermill", reason="Papermill is not installed: pip install papermill")

pytestmark = [pytest.mark.versions, pytest.mark.notebook, pytest.mark.colab]


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def test_run_of_a_killed_kernel_resumes(project, tmp_path):
    history = project / "drive" / "06_final" / "seed-7" / "history.csv"
    local = project / "notebooks" / "runs" / "06_final" / "seed-7"
    arguments = command(project, "06_final", tmp_path / "killed.ipynb", EPOCHS=500, SEED=7, TRAIN_SIZE=64, VAL_SIZE=10)
    with subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as notebook:
        deadline = time.monotonic() + 300
        while not list(local.glob("checkpoints/*.safetensors")):
            assert notebook.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for kernel in children(notebook.pid):
            os.kill(kernel, signal.SIGKILL)
        notebook.terminate()
    done = len(read_history(local / "history.csv")["epoch"])
    assert 0 < done < 500
    execute(project, "06_final", tmp_path, EPOCHS=done + 2, SEED=7, TRAIN_SIZE=64, VAL_SIZE=10)
    assert read_history(history)["epoch"] == list(range(1, done + 3))
    starts = json.loads((local / "run.json").read_text())["starts"]
    assert [start["first_epoch"] > 1 for start in starts] == [False, True]


def children(pid):
    listed = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for child in " ".join(listed).split()]
