"""What the explorer and the exported page take from the files of runs, and how much they write."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from colabcnn import Error, explore, export_html, shipped_results
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_list import list_runs
from colabcnn.viewing import measured_runs
from colabcnn.viewing.browser_data import data_of, figure_html, read_runs
from colabcnn.viewing.live import LiveCurves, references_of
from colabcnn.viewing.measured_runs import read_measured_run
from support.explorer_page import saturating, write_run
from support.runs import history_of, make_record

pytestmark = pytest.mark.versions

FINAL = EXPERIMENTS["06_final"]


def data(folder):
    return data_of(read_runs(list_runs(folder)))


def entries(folder):
    return {run["label"]: run for run in data(folder)["runs"]}


def written_data(explorer):
    return json.loads(explorer._data_html().split('", ', 1)[1].split(");</script>", 1)[0])


def values(entry, name):
    curve = entry["curves"][name]
    if isinstance(curve, float):
        return [curve] * entry["epochs"]
    return np.frombuffer(base64.b64decode(curve), "<f4").tolist()


def test_curves_keep_every_digit_of_float32(tmp_path):
    history = saturating(0.8, 1, epochs=50)
    entry = entries(write_run(tmp_path / "run", history))["run"]
    for column in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"):
        assert values(entry, column) == [float(np.float32(value)) for value in history[column]]


def test_history_that_does_not_begin_with_epoch_1_keeps_its_epochs(tmp_path):
    history = history_of(0.1, 0.2, 0.3)
    assert "epoch" not in entries(write_run(tmp_path / "a", history))["a"]["curves"]
    history["epoch"] = [4, 5, 7]
    assert values(entries(write_run(tmp_path / "a", history))["a"], "epoch") == [4, 5, 7]


def test_seeds_are_one_group_and_other_settings_are_others(tmp_path):
    history = history_of(0.1, 0.2)
    other = replace(FINAL, dropout=0.5)
    records = {
        "06_final/seed-0": make_record(FINAL),
        "06_final/seed-1": make_record(FINAL, seed=1),
        "fewer/seed-2": make_record(replace(FINAL, epochs=20), seed=2),
        "few_images/seed-0": make_record(FINAL, train_size=1000),
        "other/seed-0": make_record(other),
        "second_copy/seed-1": make_record(FINAL, seed=1),
        "third_copy/seed-1": make_record(FINAL, seed=1),
    }
    for label, record in records.items():
        write_run(tmp_path / label, history, record)
    write_run(tmp_path / "no_record/seed-0", history)
    groups = {label: entry["group"] for label, entry in entries(tmp_path).items()}
    assert groups == {
        "06_final/seed-0": "06_final",
        "06_final/seed-1": "06_final",
        "fewer/seed-2": "06_final, 20 of 700 epochs",
        "few_images/seed-0": "06_final, 1,000 training images",
        "other/seed-0": "06_final, dropout 0.5",
        "second_copy/seed-1": "06_final, again",
        "third_copy/seed-1": "06_final, again, again",
        "no_record/seed-0": "no_record",
    }


def test_seeds_of_three_settings_or_two_precisions_are_groups_of_their_own(tmp_path):
    records = {
        "a/seed-0": make_record(FINAL),
        "b/seed-0": make_record(replace(FINAL, dropout=0.5)),
        "c/seed-0": make_record(replace(FINAL, dropout=0.5, batch_size=64)),
        "d/seed-0": make_record(FINAL, precision="mixed_float16"),
        "e/seed-1": make_record(replace(FINAL, augmentation=None), seed=1),
    }
    for label, record in records.items():
        write_run(tmp_path / label, history_of(0.1, 0.2), record)
    assert len({entry["group"] for entry in entries(tmp_path).values()}) == 5


def test_own_run_is_apart_from_the_shipped_ones_and_a_history_without_a_record_from_both(tmp_path):
    shipped = shipped_results() / "08_in_minutes"
    write_run(tmp_path / "08_in_minutes/seed-0", history_of(0.1, 0.2), read_measured_run(shipped / "seed-0").record)
    write_run(tmp_path / "08_in_minutes/seed-77", history_of(0.1, 0.2))
    found = data_of(read_runs(list_runs(tmp_path, shipped)))["runs"]
    groups = [entry["group"] for entry in found]
    assert groups[:2] == ["08_in_minutes", "08_in_minutes, no record"]
    assert {*groups[2:]} == {"08_in_minutes, shipped"}
    assert {entry["notes"] for entry in found[2:]} == {"shipped"}  # A list of many runs shows the notes alone.


def test_few_images_are_partial_with_images_held_out_too(tmp_path):
    write_run(tmp_path / "a" / "seed-0", history_of(0.1), make_record(FINAL, holdout=5000, train_size=256))
    write_run(tmp_path / "b" / "seed-0", history_of(0.1), make_record(FINAL, holdout=5000, train_size=45_000))
    write_run(tmp_path / "c" / "seed-0", history_of(0.1), make_record(EXPERIMENTS["02_augmentation"]))
    assert {name: entry["off"] for name, entry in entries(tmp_path).items()} == {
        "a/seed-0": True,
        "b/seed-0": False,
        "c/seed-0": False,
    }


def test_controls_leave_no_text_in_a_saved_notebook(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    explore(write_run(tmp_path / "run", history_of(0.1)))._ipython_display_()
    assert shown[0]["text/plain"] == ""
    assert shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"]


def test_partial_runs_are_off_only_beside_other_experiments(tmp_path):
    history = history_of(0.1, 0.2)
    few = {"data": "synthetic", "train_size": 256, "val_size": 100}
    write_run(tmp_path / "06_final" / "seed-0", history, make_record(FINAL, **few))
    write_run(tmp_path / "06_final" / "seed-1", history, make_record(FINAL, seed=1))
    assert [entry["off"] for entry in entries(tmp_path).values()] == [False, False]
    write_run(tmp_path / "02_augmentation" / "seed-0", history, make_record(EXPERIMENTS["02_augmentation"]))
    off = {label: entry["off"] for label, entry in entries(tmp_path).items()}
    assert off == {"02_augmentation/seed-0": False, "06_final/seed-0": True, "06_final/seed-1": False}
    assert "synthetic images, 256 training images" in entries(tmp_path)["06_final/seed-0"]["details"]


def test_details_say_data_epochs_seed_device_date_and_origin(tmp_path):
    write_run(tmp_path / "run", history_of(0.1, 0.2), make_record(FINAL, seed=3, device="Tesla T4"))
    assert entries(tmp_path)["run"]["details"] == (
        "2 of 700 epochs, 50,000 training images, validated on 10,000, seed 3, Tesla T4, 2026-01-01, yours"
    )


def test_plotly_is_loaded_by_version_and_digest(tmp_path):
    source = data(write_run(tmp_path / "run", history_of(0.1)))["plotly"]
    assert re.fullmatch(r"https://cdn\.plot\.ly/plotly-\d+\.\d+\.\d+\.min\.js", source["url"])
    assert len(base64.b64decode(source["integrity"].removeprefix("sha256-"))) == 32


def test_explorer_of_39_runs_is_small_enough_for_a_notebook_and_a_page(tmp_path):
    for number in range(39):
        run = tmp_path / f"{number // 3:02}_experiment" / f"seed-{number % 3}"
        write_run(run, saturating(0.8, number), make_record(FINAL, seed=number))
    assert len(explore(tmp_path)._data_html() + figure_html("page")) < 1.5e6
    assert export_html(tmp_path, path=tmp_path / "curves.html").stat().st_size < 6e6


def test_refresh_of_a_live_run_is_small(tmp_path):
    shown = {}
    LiveCurves(tmp_path / "seed-0", shown.__setitem__).show(saturating(0.8, 0), make_record(FINAL))
    assert set(shown) == {"data", "figure"}
    assert len(shown["data"]) < 60_000


def test_names_of_folders_cannot_end_the_script(tmp_path):
    write_run(tmp_path / "<script>", history_of(0.1))
    page = export_html(tmp_path, path=tmp_path / "page.html").read_text(encoding="utf-8")
    data = page.split('("page", ', 1)[1].split(");</script>", 1)[0]
    assert "<" not in data
    assert json.loads(data)["runs"][0]["label"] == "<script>"


def test_name_that_is_not_unicode_is_shown(tmp_path):
    folder = tmp_path / "caf\udce9"
    try:
        write_run(folder, history_of(0.1))
    except OSError:
        pytest.skip("this file system has only names in Unicode")
    assert "caf?" in export_html(folder, path=tmp_path / "page.html").read_text(encoding="utf-8")
    write_run(tmp_path / "tea", history_of(0.2))  # The name is in the picture, too.
    assert "caf?" in explore(tmp_path)._data_html()


def test_device_that_is_not_unicode_is_shown(tmp_path):
    run = write_run(tmp_path / "run", history_of(0.1), make_record(FINAL, device="a\ud800b"))
    assert "a?b" in export_html(run, path=tmp_path / "page.html").read_text(encoding="utf-8")


def test_article_and_shipped_run_are_reference_lines(tmp_path, monkeypatch):
    write_run(tmp_path / "06_final" / "seed-0", history_of(0.5, 0.8041, 0.7), make_record(FINAL))
    monkeypatch.setattr(measured_runs, "shipped_results", lambda: tmp_path)
    lines = references_of(make_record(FINAL))
    assert [line["label"] for line in lines] == ["article's best 0.9010", "shipped run's best 0.8041"]
    assert references_of(make_record(FINAL, data="synthetic")) == []
    assert references_of(make_record(replace(FINAL, name="my own"))) == []


def test_refresh_reads_new_epochs_and_new_folders(tmp_path):
    write_run(tmp_path / "a" / "one", history_of(0.1))
    shown = explore(tmp_path / "a")
    write_run(tmp_path / "a" / "two", history_of(0.1))
    write_run(tmp_path / "b" / "three", history_of(0.1))
    shown.refresh()
    assert list(shown._runs) == ["one", "two"]
    shown.refresh(tmp_path / "b")
    assert list(shown._runs) == ["one", "two", "three"]
    with pytest.raises(Error, match="does not exist"):
        shown.refresh(tmp_path / "nowhere")
    assert list(shown._runs) == ["one", "two", "three"]
    shown.refresh()


def test_run_keeps_its_number_when_another_folder_makes_its_label_longer(tmp_path):
    for name in ("b/one", "a/z/one"):
        write_run(tmp_path / name, history_of(0.1))
    shown = explore(tmp_path / "b")
    assert [(run["label"], run["id"]) for run in written_data(shown)["runs"]] == [("one", 0)]
    shown.refresh(tmp_path / "a")
    assert [(run["label"], run["id"]) for run in written_data(shown)["runs"]] == [("b/one", 0), ("z/one", 1)]


def test_call_of_a_view_names_the_folders(tmp_path):
    folder = write_run(tmp_path / "it's", history_of(0.1))
    data = written_data(explore(folder, view="metric=loss"))
    assert data["view"] == "metric=loss"
    assert data["call"] == f"colabcnn.explore({str(folder)!r}, view="


def test_folder_without_a_run_or_with_a_broken_history_is_refused(tmp_path):
    with pytest.raises(Error, match="holds no run"):
        explore(tmp_path)
    with pytest.raises(Error, match="no run to show"):
        explore()
    (tmp_path / "history.csv").write_text("epoch,loss\n1,x\n")
    with pytest.raises(Error, match="line 2"):
        export_html(tmp_path)


def test_page_that_cannot_be_written_is_reported(tmp_path):
    write_history(tmp_path / "history.csv", empty_history())
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(Error, match="cannot be written"):
        export_html(tmp_path, path=tmp_path / "folder.html")


def test_figure_loads_nothing_but_plotly():
    text = figure_html("x")
    assert re.findall(r"https?://[^\s\"'`]+", text) == []
