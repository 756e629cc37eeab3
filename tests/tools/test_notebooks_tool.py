"""The notebooks are made from their texts, the experiments' fields and the runs in `results/`, and are up to date."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import notebook_values
import notebooks
from colabcnn import ABLATIONS, RECIPES, Error
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.experiments.settings import flatten_settings
from colabcnn.store.history import read_history, write_history
from result_tables import NOT_MEASURED, read_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path):
    """What the notebooks are made from, and the notebooks."""
    checkout = tmp_path / "checkout"
    for folder in ("results", "tools/notebook_texts", "notebooks"):
        ignored = shutil.ignore_patterns(".*", "runs", "measured")
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    return checkout


def names(paths):
    return [path.stem for path in paths]


def cells(checkout, name):
    notebook = json.loads((checkout / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}


def rows(table):
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def alter(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_committed_notebooks_are_up_to_date():
    assert notebooks.write(ROOT, check=True) == [], "run python tools/notebooks.py"


def test_same_texts_give_the_same_bytes(checkout):
    shutil.rmtree(checkout / "notebooks")
    (checkout / "notebooks").mkdir()
    written = notebooks.write(checkout)
    assert names(written) == names(sorted((ROOT / "notebooks").glob("*.ipynb")))
    assert all(path.read_bytes() == (ROOT / "notebooks" / path.name).read_bytes() for path in written)
    assert notebooks.write(checkout) == []


def test_only_stale_notebooks_are_named_and_only_without_check_written(checkout, monkeypatch, capsys):
    alter(checkout / "tools" / "notebook_texts" / "04_dropout_50.md", "text: asks -->\n", "text: asks -->\nA new one. ")
    (checkout / "notebooks" / "11_your_own.ipynb").unlink()
    monkeypatch.setattr(notebooks, "ROOT", checkout)
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--check"])
    with pytest.raises(SystemExit, match=r"Run python tools/notebooks\.py"):
        notebooks.main()
    stale = ["notebooks/04_dropout_50.ipynb", "notebooks/11_your_own.ipynb"]
    assert capsys.readouterr().out.splitlines() == [f"{path} is out of date" for path in stale]
    monkeypatch.setattr(sys, "argv", ["notebooks.py"])
    notebooks.main()
    assert capsys.readouterr().out.splitlines() == [f"{path} is updated" for path in stale]
    assert "A new one. " in cells(checkout, "04_dropout_50")["title"]
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--check"])
    notebooks.main()


def test_address_is_in_every_setup_cell_and_badge(checkout):
    alter(checkout / "pyproject.toml", "https://github.com/YOUR_ACCOUNT/colabcnn", "https://github.com/you/it")
    written = notebooks.write(checkout)
    assert len(written) == 15
    for path in written:
        found = cells(checkout, path.stem)
        assert "https://github.com/you/it" in found["setup"]
        assert re.search(rf"/github/you/it/blob/[^)]+/notebooks/{path.name}\)", found["title"])


@pytest.mark.parametrize("placeholder", ["{{no_such_text}}", "{{this.no_such_number}}"])
@pytest.mark.parametrize("file", ["experiment.md", "06_final.md", "13_measure.md"])
def test_unknown_placeholder_is_refused(checkout, file, placeholder):
    with (checkout / "tools" / "notebook_texts" / file).open("a") as text:
        text.write(f"\n{placeholder}\n")
    with pytest.raises(Error, match=re.escape(placeholder)):
        notebooks.write(checkout)


def test_file_without_a_mark_and_code_without_a_fence_are_refused(tmp_path):
    path = tmp_path / "texts.md"
    path.write_text("# A title\n")
    with pytest.raises(Error, match="expected <!-- cell: ID -->"):
        notebooks.sections(path)
    path.write_text("<!-- code: run -->\nprint()\n")
    with pytest.raises(Error, match="the code of run is not between"):
        notebooks.sections(path)


def test_every_text_is_used():
    folder = ROOT / "tools" / "notebook_texts"
    everything = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    used = set(notebooks.PLACEHOLDER.findall(everything)) | {"base"}
    used |= {f"more_epochs_{kind}" for kind in ("Constant", "RiseAndFall")}
    assert set(re.findall(r"<!-- text: ([\w-]+) -->", everything)) <= used
    assert EXPERIMENTS.keys() <= {path.stem for path in folder.glob("*.md")}


def test_changes_are_those_of_the_fields():
    table = notebook_values.changes_table(ABLATIONS["04_dropout_50"], ABLATIONS["03_dropout_20"])
    assert rows(table) == {"setting": ["03", "04"], "---": ["---", "---"], "dropout": ["0.20", "0.50"]}
    kernels = rows(notebook_values.changes_table(ABLATIONS["05_ascending_kernels"], ABLATIONS["03_dropout_20"]))
    assert kernels["kernels in a set, in order"] == ["5x5, 3x3, 1x1", "1x1, 3x3, 5x5"]
    added = rows(notebook_values.changes_table(ABLATIONS["02_augmentation"], ABLATIONS["01_descending_kernels"]))
    assert added["rotation"] == ["none", "up to 20 degrees"]
    assert "shift of the colour values" not in added
    first = rows(notebook_values.changes_table(ABLATIONS["01_descending_kernels"], None))
    assert first["augmentation"] == ["none"]
    assert first["epochs"] == ["700"]


def test_every_setting_has_words():
    for experiment in (*ABLATIONS.values(), *RECIPES.values()):
        for name, value in flatten_settings(experiment.settings()).items():
            if name not in ("name", "augmentation", "augmentation.kind"):
                assert notebook_values.WORDS[name][1](value), name


def test_setting_without_words_is_refused(monkeypatch):
    others = {name: words for name, words in notebook_values.WORDS.items() if name != "dropout"}
    monkeypatch.setattr(notebook_values, "WORDS", others)
    with pytest.raises(Error, match="the settings dropout have no words"):
        notebook_values.changes_table(ABLATIONS["04_dropout_50"], ABLATIONS["03_dropout_20"])


def test_numbers_are_those_of_the_measured_run(checkout):
    path = checkout / "results" / "01_descending_kernels" / "seed-0" / "history.csv"
    history = read_history(path)
    history["val_loss"][6] = 0.0001
    history["accuracy"][6] = 0.4321
    write_history(path, history)
    assert names(notebooks.write(checkout)) == ["01_descending_kernels"]
    measured = cells(checkout, "01_descending_kernels")["measured"]
    assert f"lowest in epoch 7 of {len(history['epoch'])}" in measured
    assert "0.4321" in measured
    assert f"{history['val_accuracy'][-1]:.4f}" in measured


def test_numbers_of_a_run_follow_from_its_history():
    history = {
        "epoch": [1, 2, 3, 4, 5, 6],
        "accuracy": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "val_accuracy": [0.7, 0.82, 0.80, 0.84, 0.80, 0.84],
        "val_loss": [3.0, 1.0, 2.0, 2.0, 2.0, 2.0],
    }
    found = {name: number(history) for name, number in notebook_values.NUMBERS.items()}
    assert found == {
        "length": "6",
        "last": "0.8400",
        "last_training": "0.6000",
        "best": "0.8400",
        "best_epoch": "4",
        "lowest_loss_epoch": "2",
        "training_there": "0.2000",
        "late": "0.8200",
        "late_training": "0.4000",
        "gap": "-42.0",
        "change_late": "5.2",
        "change_middle": "6.0",
        "gain_late": "+4.0",
        "first_at_080": "2",
    }


def test_missing_run_is_not_yet_measured(checkout):
    shutil.rmtree(checkout / "results" / "06_final")
    assert set(names(notebooks.write(checkout))) == {"06_final", "07_without_luck", "08_in_minutes", "11_your_own"}
    found = cells(checkout, "06_final")
    assert NOT_MEASURED in found["title"]
    assert NOT_MEASURED in found["measured"]


def test_duration_names_each_device(checkout):
    runs_of = read_results(checkout / "results")
    experiment = RECIPES["08_in_minutes"]
    runs = [
        replace(
            run, history={"epoch": [1, 2, 3], "seconds": [99, *[seconds] * 2]}, record=replace(run.record, starts=())
        )
        for run, seconds in zip(runs_of["08_in_minutes"], (60, 90, 90), strict=False)
    ]
    assert notebook_values.duration_sentence(experiment, runs) == (
        "Seconds per epoch, measured: 60 to 90 on an unknown device, mixed_bfloat16. "
        "For 10 epochs this makes 10 to 15 min (calculated)."
    )
    assert NOT_MEASURED in notebook_values.duration_sentence(experiment, [])
