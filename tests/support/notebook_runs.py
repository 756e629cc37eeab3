"""The notebooks, read as files and executed by Papermill, all cells in order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

import colabcnn

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["00_start_here", *colabcnn.ABLATIONS, *colabcnn.RECIPES, "10_compare_runs", "11_your_own"]
NAMES += ["12_many_seeds", "13_measure"]
# Compiled by XLA as a person's is, not as `conftest.py` sets it.
ENVIRONMENT = {**os.environ, "XLA_FLAGS": ""}
TINY = {"EPOCHS": 1, "DATA": "synthetic", "TRAIN_SIZE": 128, "VAL_SIZE": 50, "SEEDS": "0:2"}


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def sources(notebook):
    return {cell["id"]: cell["source"] for cell in notebook.cells}


def make_project(project):
    """Make a folder as a person has it, with the notebooks beside the library, and return it."""
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
    arguments = command(project, name, out, **parameters)
    completed = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    executed = json.loads(out.read_text())
    return {cell.get("id", "injected"): cell.get("outputs", []) for cell in executed["cells"]}
