"""Shipped weights are a run's best ones in half the size, and a name finds them."""

import shutil

import numpy as np
import pytest

from colabcnn import Error, export, load_model
from colabcnn.store import run_list
from colabcnn.store.run_folder import open_checkpoint
from ship_weights import ship

pytestmark = pytest.mark.versions


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


def test_weights_of_another_run_are_not_shipped(trained, results, cifar10_folder):
    history = results / "small" / "seed-0" / "history.csv"
    history.write_text(history.read_text().replace(",0.", ",0.0"))
    with pytest.raises(Error, match="has another history than"):
        ship(trained, cifar10_folder, results)
    assert not (results / "small" / "seed-0" / "checkpoints").exists()
