"""The table and the pictures say what the runs' files say, and what was not run."""

import json
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, Error, run
from colabcnn.history import read_history
from colabcnn.summary import save_figures, summarize


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two runs of three epochs, one of them in two sessions."""
    folder = tmp_path_factory.mktemp("results")
    options = {"data": "synthetic", "train_size": 100, "val_size": 40, "quiet": True}
    for name, lengths in (("06_final", (1, 3)), ("02_augmentation", (3,))):
        experiment = replace(ABLATIONS[name], name="small", kernel_sizes=(3,), filters=(4, 4, 8), batch_size=16)
        for epochs in lengths:
            run(experiment, folder / name / "seed-0", epochs=epochs, **options)
    return folder


def rows(table):
    return {cells[0].strip("`"): cells[1:] for cells in (line[2:-2].split(" | ") for line in table.splitlines()[2:])}


def test_table_has_the_articles_word_and_the_last_and_best_epoch(results):
    told = rows(summarize(results))
    history = read_history(results / "06_final" / "seed-0" / "history.csv")
    assert list(told) == list(ABLATIONS)
    article, last, best, epochs, _, device = told["06_final"]
    assert "best 0.9010 at epoch 326" in article
    assert last == f"{history['val_accuracy'][-1]:.4f}"
    assert best.startswith(f"{max(history['val_accuracy']):.4f} (epoch ")
    assert epochs == "3 of 3"
    assert device.endswith("float32, seed 0")


def test_experiment_without_a_run_says_so(results):
    assert rows(summarize(results))["01_descending_kernels"][1:] == ["not yet measured", "", "", "", ""]


def test_seconds_leave_out_what_holds_the_compilation(results, tmp_path):
    folder = tmp_path / "06_final" / "seed-0"
    folder.mkdir(parents=True)
    run_json = json.loads((results / "06_final" / "seed-0" / "run.json").read_text())
    assert [start["first_epoch"] for start in run_json["starts"]] == [1, 2]
    lines = (results / "06_final" / "seed-0" / "history.csv").read_text().splitlines()
    seconds = iter(("seconds", "100", "200", "7"))
    (folder / "history.csv").write_text("".join(f"{line.rpartition(',')[0]},{next(seconds)}\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(run_json))
    assert rows(summarize(tmp_path))["06_final"][4] == "7"


def test_figures_are_written_and_are_pictures(results, tmp_path):
    paths = save_figures(results, tmp_path / "figures")
    assert [path.stem for path in paths] == [
        "loss",
        "accuracy",
        "enlarged",
        "around-the-best",
        "validation",
        "seconds",
    ]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in paths)


def test_folder_without_runs_is_told(tmp_path, run_cli):
    assert summarize(tmp_path).count("not yet measured") == 6
    with pytest.raises(Error, match="holds no run"):
        save_figures(tmp_path, tmp_path / "figures")
    refused = run_cli("summary", tmp_path / "nowhere")
    assert refused.returncode == 2
    assert "is not there" in refused.stderr
