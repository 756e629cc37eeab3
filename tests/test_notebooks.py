"""The notebooks are thin, alike, and run from top to bottom; a killed kernel's run goes on when they are run again."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

import colabcnn
from colabcnn.history import read_history

papermill = pytest.importorskip("papermill", reason="Papermill is not installed: pip install papermill")

pytestmark = [
    pytest.mark.versions,
    # What an installed kernel and its client tell of themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:Passing:Warning"),
]

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = list(colabcnn.ABLATIONS)
NAMES = ["00_start_here", *EXPERIMENTS, "09_compare_runs", "10_your_own"]
# Compiling each network takes JAX the better part of a minute on a CPU.
EXECUTED = NAMES if importlib.util.find_spec("tensorflow") else ["06_final"]
TINY = {"EPOCHS": 1, "DATA": "synthetic", "TRAIN_SIZE": 128, "VAL_SIZE": 50}
DEFAULTS = {
    "EPOCHS": 700,
    "DATA": "cifar10",
    "TRAIN_SIZE": 50000,
    "VAL_SIZE": 10000,
    "SEED": 0,
    "HOURS": 11.5,
    "DRIVE_FOLDER": "/content/drive/MyDrive/colabcnn",
    "ALLOW_LONG": False,
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def sources(notebook):
    return {cell["id"]: cell["source"] for cell in notebook.cells}


def test_these_notebooks_are_there_and_no_others():
    assert [path.stem for path in sorted((ROOT / "notebooks").iterdir())] == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_valid_and_holds_nothing_of_a_run(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}
    assert notebook.metadata.accelerator == "GPU"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_thin(name):
    notebook = read(name)
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell["id"]
            assert len(cell.source.splitlines()) <= 15, cell["id"]
            assert not re.search(r"^\s*(def|class|for|while) ", cell.source, re.MULTILINE), cell["id"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_forms_that_papermill_finds(name):
    (cell,) = [cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert all("# @param" in line for line in cell.source.splitlines())
    values = {}
    exec(cell.source, values)
    if name in EXPERIMENTS:
        assert {key: value for key, value in values.items() if key.isupper()} == {"EXPERIMENT": name, **DEFAULTS}
    else:
        assert {"DATA", "DRIVE_FOLDER"} <= set(values)


def test_experiments_notebooks_differ_in_story_and_name_only():
    first = read(EXPERIMENTS[0])
    for name in EXPERIMENTS[1:]:
        notebook = read(name)
        assert notebook.metadata == first.metadata
        mine, theirs = sources(notebook), sources(first)
        assert list(mine) == list(theirs)
        assert {key for key in mine if mine[key] != theirs[key]} == {"title", "parameters", "next"}
        assert mine["parameters"] == theirs["parameters"].replace(EXPERIMENTS[0], name)


def test_each_story_says_what_the_article_reports():
    for name, experiment in colabcnn.ABLATIONS.items():
        reported = experiment.reported
        for value in (reported.val_accuracy, reported.best_val_accuracy, reported.best_epoch):
            assert value is None or f"{value:g}" in sources(read(name))["title"], (name, value)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder as a person has it: the notebooks beside the library, and nothing of it installed elsewhere."""
    project = tmp_path_factory.mktemp("project")
    for name in ("colabcnn", "results", "pyproject.toml"):
        (project / name).symlink_to(ROOT / name)
    (project / "notebooks").mkdir()
    for name in NAMES:
        (project / "notebooks" / f"{name}.ipynb").write_bytes((ROOT / "notebooks" / f"{name}.ipynb").read_bytes())
    return project


def command(project, name, out, **parameters):
    parameters = {key: value for key, value in (TINY | parameters).items() if f"{key} = " in str(sources(read(name)))}
    given = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    given += ["-p", "DRIVE_FOLDER", str(project / "drive")]
    notebooks = project / "notebooks"
    program = [sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar", "--cwd", str(notebooks)]
    return [*program, str(notebooks / f"{name}.ipynb"), str(out), *given]


def execute(project, name, tmp_path, **parameters):
    out = tmp_path / f"{name}.ipynb"
    done = subprocess.run(command(project, name, out, **parameters), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    executed = json.loads(out.read_text())
    return {cell.get("id", "injected"): cell.get("outputs", []) for cell in executed["cells"]}


def kinds(outputs):
    return [kind for output in outputs for kind in output.get("data", {"text": 0})]


@pytest.mark.parametrize("name", EXECUTED)
def test_notebook_runs_from_top_to_bottom(project, tmp_path, name):
    outputs = execute(project, name, tmp_path)
    assert not [output for cell in outputs.values() for output in cell if output["output_type"] == "error"]
    assert f"colabcnn {colabcnn.__version__}" in str(outputs["setup"])
    assert WIDGET in kinds(outputs["explore"])
    for cell in {"confusion", "mistakes", "images", "augmentation", "picture"} & set(outputs):
        assert "image/png" in kinds(outputs[cell]), cell
    if "run" in outputs:
        assert kinds(outputs["run"]).count("image/png") == 1
        assert "epoch 1/1" in str(outputs["run"])
    if name in EXPERIMENTS:
        assert read_history(project / "drive" / name / "seed-0" / "history.csv")["epoch"] == [1]
    if name == "09_compare_runs":
        assert "06_final" in str(outputs["table"])
        assert "application/vnd.plotly.v1+json" in kinds(outputs["figure"])


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
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(child) for child in listed.stdout.split()]
