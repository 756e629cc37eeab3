"""TensorFlow's oneDNN operations are on by default, and a run keeps the setting of its first start."""

import json
import os
import subprocess
import sys

import pytest

from colabcnn import onednn
from colabcnn.store.experiment_file import write_experiment
from support.runs import differences
from support.shared_files import EXPERIMENT

pytestmark = [pytest.mark.versions, pytest.mark.kill]

TRAIN = """
import sys
import colabcnn
from colabcnn.store.experiment_file import read_experiment
folder, *runs = sys.argv[1:]
for name, epochs in zip(runs[::2], map(int, runs[1::2])):
    experiment = read_experiment(f"{folder}/small.json")
    colabcnn.run(experiment, f"{folder}/{name}", epochs=epochs, data="synthetic", train_size=32, val_size=20)
"""


def setting_after(code, **environment):
    env = {name: value for name, value in os.environ.items() if name != onednn.VARIABLE} | environment
    code += f"; import os; print(os.environ.get({onednn.VARIABLE!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_import_switches_onednn_on_unless_it_is_set_or_tensorflow_is_imported():
    assert setting_after("import colabcnn").strip() == "1"
    assert setting_after("import colabcnn", **{onednn.VARIABLE: "0"}).strip() == "0"
    # A stand-in for TensorFlow, which reads the setting on import.
    imported = "import sys, types; module = sys.modules['tensorflow'] = types.ModuleType('tensorflow'); "
    imported += "module.__spec__ = sys.__spec__; import colabcnn"
    assert setting_after(imported).strip() == "None"


def starts_of(run_dir):
    return [start["onednn"] for start in json.loads((run_dir / "run.json").read_text())["starts"]]


@pytest.mark.colab
def test_run_keeps_its_first_setting_and_reports_where_it_cannot(tmp_path, run_cli):
    pytest.importorskip("tensorflow", reason="oneDNN is a setting of TensorFlow's")
    write_experiment(tmp_path / "small.json", EXPERIMENT)

    off, on = ({**os.environ, onednn.VARIABLE: setting, "KERAS_BACKEND": "tensorflow"} for setting in "01")

    def train(code, env, *runs):
        command = [sys.executable, "-c", code, tmp_path, *runs]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout

    train(TRAIN, off, "uninterrupted", "2", "resumed", "1")
    sizes = ("--data", "synthetic", "--train-size", "32", "--val-size", "20", "--epochs", "2")
    completed = run_cli("train", tmp_path / "small.json", "--run-dir", tmp_path / "resumed", *sizes, env=on)
    assert completed.returncode == 0, completed.stderr
    assert starts_of(tmp_path / "resumed") == [False, False]
    assert "oneDNN" not in completed.stdout
    assert differences(tmp_path / "resumed", tmp_path / "uninterrupted") == []
    # As in a notebook: TensorFlow is imported before the run is known.
    output = train(f"import tensorflow\n{TRAIN}", on, "resumed", "3")
    assert starts_of(tmp_path / "resumed") == [False, False, True]
    assert f"To keep them, set {onednn.VARIABLE}=0 before Python starts." in output
