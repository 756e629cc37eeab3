"""Shipped weights are a run's best ones in half the size, and a name finds them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from colabcnn import Error, export, load_model, predict
from colabcnn.data.cifar10 import CLASS_NAMES, load_cifar10
from colabcnn.inspection.predictions import class_probabilities
from colabcnn.store import run_list
from colabcnn.store.run_folder import open_checkpoint
from ship_weights import ship

pytestmark = pytest.mark.versions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def results(trained, tmp_path, monkeypatch):
    """A folder of shipped runs that has the history and the record of `trained`."""
    folder = tmp_path / "results" / "small" / "seed-0"
    folder.mkdir(parents=True)
    for name in ("history.csv", "run.json"):
        shutil.copy(trained / name, folder)
    monkeypatch.setattr(run_list, "shipped_results", lambda: tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_shipped_weights_are_found_by_name_and_an_existing_folder_wins(trained, results, cifar10_folder):
    with pytest.raises(Error, match="small holds no run"):
        load_model("small")
    right = ship(trained, cifar10_folder, results)
    assert right["images"] == 10000
    assert abs(right["float16"] - right["float32"]) <= 20  # An untrained network is near chance, with many ties.
    (file,) = (results / "small" / "seed-0" / "checkpoints").iterdir()
    _, _, checkpoint = open_checkpoint(trained)
    full = checkpoint.arrays["best"]
    assert file.stat().st_size < 0.6 * sum(weight.nbytes for weight in full) + 50_000
    for found, weight in zip(load_model("small").get_weights(), full, strict=True):
        np.testing.assert_array_equal(found, weight.astype(np.float16).astype(np.float32))
    shutil.copytree(trained, "small")
    for found, weight in zip(load_model("small").get_weights(), full, strict=True):
        np.testing.assert_array_equal(found, weight)
    assert export(results / "small" / "seed-0", "shared.safetensors", quiet=True)


def test_weights_that_come_along_classify_test_images(cifar10_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = (ROOT / "results" / "08_in_minutes").glob("seed-*/weights.json")
    written, images = json.loads(path.read_text()), 1000
    (_, _), (test_images, test_labels) = load_cifar10(cifar10_folder)
    probabilities = class_probabilities(load_model("08_in_minutes"), test_images[:images])
    share = (probabilities.argmax(1) == test_labels[:images]).mean()
    assert share == pytest.approx(written["float16"] / written["images"], abs=0.03)  # Three standard errors.
    assert predict("08_in_minutes", test_images[0], test_labels[0]).class_name == CLASS_NAMES[test_labels[0]]
    assert sum(file.stat().st_size for file in path.parent.rglob("*.safetensors")) < 7e6


def test_weights_of_another_run_are_not_shipped(trained, results, cifar10_folder):
    history = results / "small" / "seed-0" / "history.csv"
    history.write_text(history.read_text().replace(",0.", ",0.0"))
    with pytest.raises(Error, match="has another history than"):
        ship(trained, cifar10_folder, results)
    assert not (results / "small" / "seed-0" / "checkpoints").exists()
