"""The table of the runs on Drive: the epochs done and left, and the notebook that continues each."""

import shutil
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, RECIPES, Adam, Augmentation, colab, export, fetch, run, runs_on_drive
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.viewing.runs_on_drive import COLUMNS
from support.runs import history_of, make_record

pytestmark = pytest.mark.versions


@pytest.fixture
def put_run(tmp_path):
    """Return a function that writes a run with so many epochs into `tmp_path`."""

    def put_run(experiment, done, *, seed=0, folder=None, **changes):
        folder = RunFolder(tmp_path / (folder or experiment.name) / f"seed-{seed}")
        folder.path.mkdir(parents=True)
        write_history(folder.history_csv, history_of(*[0.5] * done) if done else empty_history())
        folder.write_record(make_record(experiment, seed=seed, **changes))
        return folder

    return put_run


def rows(table):
    return [dict(zip(COLUMNS, line[2:-2].split(" | "), strict=True)) for line in table.splitlines()[2:]]


def test_run_has_the_epochs_done_and_left_and_its_notebook(tmp_path, put_run):
    put_run(ABLATIONS["06_final"], 20, seed=3)
    (row,) = rows(runs_on_drive(tmp_path))
    assert row == {
        "run": "`06_final`",
        "seed": "3",
        "epochs done": "20",
        "epochs left": "680",
        "last validation accuracy": "0.5000",
        "notebook": "06_final",
        "parameters": "SEED = 3, EPOCHS = 700",
    }


def test_finished_runs_are_below_those_with_epochs_left(tmp_path, put_run):
    put_run(replace(ABLATIONS["01_descending_kernels"], epochs=2), 2)
    put_run(RECIPES["08_in_minutes"], 0)
    found = rows(runs_on_drive(str(tmp_path)))
    assert [(row["run"], row["epochs done"], row["epochs left"]) for row in found] == [
        ("`08_in_minutes`", "0", "10"),
        ("`01_descending_kernels`", "2", "0"),
    ]
    assert found[0]["last validation accuracy"] == ""


def test_variant_and_first_short_run_name_their_notebooks(tmp_path, put_run):
    put_run(replace(ABLATIONS["06_final"], name="my_variant"), 1)
    first = replace(ABLATIONS["06_final"], name="start_here_06_final_10000", epochs=6)
    put_run(first, 1, train_size=10_000, val_size=10_000)
    table = rows(runs_on_drive(tmp_path))
    notebooks = {row["run"]: row["notebook"] for row in table}
    assert notebooks == {"`my_variant`": "11_your_own", "`start_here_06_final_10000`": "00_start_here"}
    short = next(row["parameters"] for row in table if "start_here" in row["run"])
    assert short == "EXPERIMENT = 06_final, SEED = 0, EPOCHS = 6, TRAIN_SIZE = 10000, VAL_SIZE = 10000"


def test_variant_is_shown_by_what_differs_from_the_nearest_experiment(tmp_path, put_run):
    put_run(replace(ABLATIONS["06_final"], name="a", dropout=0.4), 1)
    put_run(replace(RECIPES["08_in_minutes"], name="b", filters=(16, 32, 64), epochs=5), 1)
    put_run(replace(ABLATIONS["02_augmentation"], name="c", augmentation=Augmentation(rotation_range=10)), 1)
    put_run(replace(ABLATIONS["06_final"], name="d"), 1)
    put_run(replace(RECIPES["08_in_minutes"], name="e", augmentation=None, optimizer=Adam(0.002)), 1)
    assert [row["parameters"].partition("; ")[2] for row in rows(runs_on_drive(tmp_path))] == [
        "06_final with dropout = 0.4",
        "08_in_minutes with filters = [16, 32, 64]",
        "02_augmentation with augmentation.rotation_range = 10",
        "the settings of 06_final",
        "08_in_minutes with augmentation = None, optimizer.kind = Adam, optimizer.learning_rate = 0.002",
    ]


def test_form_names_what_differs_from_all_images(tmp_path, put_run):
    put_run(ABLATIONS["06_final"], 1, train_size=45_000, val_size=5_000, holdout=5_000)
    put_run(ABLATIONS["06_final"], 1, seed=1, data="synthetic", train_size=256, val_size=100)
    assert [row["parameters"] for row in rows(runs_on_drive(tmp_path))] == [
        "SEED = 0, EPOCHS = 700, HOLDOUT = 5000",
        "SEED = 1, EPOCHS = 700, DATA = synthetic, TRAIN_SIZE = 256, VAL_SIZE = 100",
    ]


def test_trained_run_is_complete(tmp_path, small_experiment, small_options):
    run(small_experiment, tmp_path / "run", drive_folder=tmp_path / "drive" / "small" / "seed-0", **small_options)
    (row,) = rows(runs_on_drive(tmp_path / "drive"))
    assert (row["epochs done"], row["epochs left"], row["notebook"]) == ("3", "0", "11_your_own")


def test_shared_run_is_opened_in_the_comparison(tmp_path, trained, offered):
    export(trained, tmp_path / "run.safetensors", quiet=True)
    fetch(offered((tmp_path / "run.safetensors").read_bytes()), folder=tmp_path / "fetched", quiet=True)
    (row,) = rows(runs_on_drive(tmp_path / "fetched"))
    assert (row["notebook"], row["parameters"]) == ("10_compare_runs", "shared by somebody")


def test_run_that_cannot_be_read_has_a_row_with_the_reason(tmp_path, put_run):
    put_run(ABLATIONS["06_final"], 1)
    put_run(ABLATIONS["05_ascending_kernels"], 1).run_json.unlink()
    put_run(ABLATIONS["04_dropout_50"], 1).history_csv.write_text("epoch\n1 | 2\n")
    put_run(ABLATIONS["03_dropout_20"], 1).run_json.write_text('{"format": 99}')
    put_run(ABLATIONS["02_augmentation"], 1).history_csv.write_bytes(b"\xff\xfe")
    table = runs_on_drive(tmp_path)
    assert rows(table)[0]["run"] == "`06_final`"
    reasons = {row["run"].strip("`"): row["parameters"] for row in rows(table)[1:]}
    assert reasons["05_ascending_kernels"] == "its run.json cannot be read"
    assert "line 2 is not a row" in reasons["04_dropout_50"]
    assert "is of format 99" in reasons["03_dropout_20"]
    assert "cannot be read" in reasons["02_augmentation"]


def test_missing_empty_or_no_folder_is_one_sentence(tmp_path):
    assert runs_on_drive(tmp_path / "missing") == f"There is no run in {tmp_path / 'missing'} yet."
    assert runs_on_drive(tmp_path) == f"There is no run in {tmp_path} yet."
    assert "DRIVE_FOLDER is empty" in runs_on_drive("")
    (tmp_path / "file").write_text("")
    assert "cannot be read (Not a directory)" in runs_on_drive(tmp_path / "file")
    assert "give the full path" in runs_on_drive("~nobody-of-this-name/runs")


def test_missing_drive_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "DRIVE_MOUNT", tmp_path / "drive")
    (tmp_path / "drive" / "MyDrive" / "colabcnn").mkdir(parents=True)
    assert "Google Drive is not mounted." in runs_on_drive(tmp_path / "drive" / "MyDrive" / "colabcnn")


@pytest.mark.parametrize("as_drive", [True, False])
def test_dead_mount_is_one_sentence(mount, monkeypatch, as_drive, put_run, tmp_path):
    if as_drive:
        monkeypatch.setattr(colab, "DRIVE_MOUNT", mount.path)
    put_run(ABLATIONS["06_final"], 1)
    shutil.copytree(tmp_path / "06_final", mount.path / "runs" / "06_final")
    assert len(rows(runs_on_drive(mount.path / "runs"))) == 1
    mount.kill()
    expected = "Google Drive is not mounted." if as_drive else "cannot be read (Transport endpoint is not connected)"
    assert expected in runs_on_drive(mount.path / "runs")


def test_table_is_shown_as_markdown(tmp_path, put_run):
    put_run(replace(ABLATIONS["06_final"], name="a"), 1, folder="<b>|x")
    table = runs_on_drive(tmp_path)
    assert table._repr_markdown_() == str(table)
    assert "&lt;b&gt;\\|x" in table
