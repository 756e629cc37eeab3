"""The table and the pictures show the values of the runs' files, and name missing runs."""

import json
import re
from dataclasses import replace

import pytest

from colabcnn import ABLATIONS, Error, explore, find_runs, plot_luck, plot_shipped, run
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.network import devices
from colabcnn.store import run_list
from colabcnn.store.history import empty_history, read_history, write_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_record import Start
from colabcnn.viewing import figures, measured_runs, table
from colabcnn.viewing.figures import save_figures
from colabcnn.viewing.table import summarize
from support.runs import history_of

pytestmark = pytest.mark.versions


ALL_IMAGES = {"data": "cifar10", "holdout": 0, "train_size": 50_000, "val_size": 10_000}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two runs of three epochs, one of them in two sessions."""
    folder = tmp_path_factory.mktemp("results")
    options = {"data": "synthetic", "train_size": 100, "val_size": 40, "quiet": True}
    for name, lengths in (("06_final", (1, 3)), ("02_augmentation", (3,))):
        experiment = replace(ABLATIONS[name], name="small", kernel_sizes=(3,), filters=(4, 8), batch_size=16)
        for epochs in lengths:
            run(experiment, folder / name / "seed-0", epochs=epochs, **options)
    return folder


def all_rows(table):
    return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def rows(table):
    return {name.strip("`"): cells for name, *cells in all_rows(table)}


def test_table_has_the_articles_value_and_the_last_and_best_epoch(results):
    table_rows = rows(summarize(results))
    history = read_history(results / "06_final" / "seed-0" / "history.csv")
    assert list(table_rows) == list(EXPERIMENTS)
    article, last, _, best, epochs, _, device = table_rows["06_final"]
    assert "best 0.9010 at epoch 326" in article
    assert last == f"{history['val_accuracy'][-1]:.4f}"
    assert best.startswith(f"{max(history['val_accuracy']):.4f} (epoch ")
    assert epochs == "3 of 3"
    start = json.loads((results / "06_final" / "seed-0" / "run.json").read_text())["starts"][-1]
    images = "synthetic images, 100 training images, 40 validation images"
    assert device.endswith(f"{images}, {devices.auto_precision()}, seed 0, yours, {start['time'][:10]}")


def test_experiment_without_a_run_is_not_yet_measured(results):
    assert rows(summarize(results))["01_descending_kernels"][1:] == ["not yet measured", "", "", "", "", ""]


def test_seconds_leave_out_epochs_with_compilation(results, tmp_path):
    folder = tmp_path / "06_final" / "seed-0"
    folder.mkdir(parents=True)
    run_json = json.loads((results / "06_final" / "seed-0" / "run.json").read_text())
    assert [start["first_epoch"] for start in run_json["starts"]] == [1, 2]
    lines = (results / "06_final" / "seed-0" / "history.csv").read_text().splitlines()
    seconds = iter(("seconds", "100", "200", "7"))
    (folder / "history.csv").write_text("".join(f"{line.rpartition(',')[0]},{next(seconds)}\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(run_json))
    assert rows(summarize(tmp_path))["06_final"][5] == "7"


def test_figures_are_written_as_png(results, tmp_path):
    paths = save_figures(results, tmp_path / "figures")
    assert [path.stem for path in paths] == [
        "loss",
        "accuracy",
        "enlarged",
        "around-the-best",
        "validation",
        "seconds",
        "luck",
    ]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in paths)


def test_picture_of_the_recipes_is_drawn_if_they_have_runs(tmp_path, put_run):
    put_run(tmp_path, "06_final", 0.5, 0.625, **ALL_IMAGES)
    for seed in (0, 1):
        put_run(tmp_path, "08_in_minutes", 0.75, 0.875, seed=seed, **ALL_IMAGES)
    assert [path.name for path in save_figures(tmp_path, tmp_path / "figures")[-2:]] == ["recipes.png", "epochs-to.png"]
    epochs, minutes = figures.draw_recipes(run_list.runs_by_name([tmp_path])).axes
    final, first, second, article, _ = epochs.lines
    assert (list(final.get_ydata()), list(second.get_ydata())) == ([0.5, 0.625], [0.75, 0.875])
    assert first.get_label() == f"08_in_minutes, 2 seeds: {devices.device_name()}"
    assert article.get_label() == "the article's best: epoch 326, of 54 s, Colab 2018"
    seconds = read_history(tmp_path / "06_final" / "seed-0" / "history.csv")["seconds"]
    assert list(minutes.lines[0].get_xdata()) == pytest.approx([seconds[0] / 60, sum(seconds) / 60])
    assert list(minutes.lines[3].get_xdata()) == pytest.approx([326 * 54 / 60])  # The article's values.


def test_run_beside_other_work_has_no_line_by_minutes(tmp_path, put_run):
    for seed in (0, 1):
        put_run(tmp_path, "08_in_minutes", 0.75, 0.875, seed=seed, **ALL_IMAGES)
    (tmp_path / "08_in_minutes" / "seed-1" / "beside-other-work.txt").write_text("tests")
    epochs, minutes = figures.draw_recipes(run_list.runs_by_name([tmp_path])).axes
    assert len(epochs.lines) == len(minutes.lines) + 1


def test_picture_of_epochs_to_an_accuracy_has_the_first_epoch_of_each_run_that_had_it(tmp_path, put_run):
    put_run(tmp_path, "06_final", 0.5, 0.625, **ALL_IMAGES)
    for seed, accuracies in enumerate([(0.5, 0.9, 0.89, 0.925), (0.5, 0.6, 0.91, 0.89)]):
        put_run(tmp_path, "08_in_minutes", *accuracies, seed=seed, **ALL_IMAGES)
    (axes,) = figures.draw_epochs_to(run_list.runs_by_name([tmp_path])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "06_final\n2 epochs",
        "08_in_minutes\n4 epochs",
    ]
    assert [sorted(line.get_xdata()) for line in axes.lines] == [[], [], [], [2, 3], [4], []]
    counts = [text.get_text() for text in axes.texts]
    assert counts[3:] == ["0.90: 2 of 2", "0.92: 1 of 2", "0.93: 0 of 2"]


def test_flip_averaged_accuracy_is_that_of_evaluate_for_the_last_epoch(tmp_path, put_run):
    run_dir = put_run(tmp_path, "06_final", 0.5, 0.625)
    # The value of an earlier epoch or of other images is not shown.
    for epoch, size, cell in ((2, 40, "0.6875"), (1, 40, ""), (2, 10_000, "")):
        measured = {"epoch": epoch, "flip_averaged_accuracy": 0.6875}
        (run_dir / "test.json").write_text(json.dumps({"test_size": size, "last_epoch": measured}))
        assert rows(summarize(tmp_path))["06_final"][2] == cell
    (run_dir / "test.json").write_text("[]")
    assert rows(summarize(tmp_path))["06_final"][2] == ""


def test_table_names_the_validation_images_unless_they_are_the_test_set(tmp_path, put_run):
    put_run(tmp_path, "06_final", 0.5, holdout=6000, val_size=5000)
    assert "validated on 5,000 training images held out" in rows(summarize(tmp_path))["06_final"][-1]


def test_table_marks_a_run_that_is_not_on_all_images(tmp_path, put_run):
    put_run(tmp_path, "06_final", 0.5, train_size=256, val_size=100)
    put_run(tmp_path, "08_in_minutes", 0.75, **ALL_IMAGES)
    table_rows = rows(summarize(tmp_path))
    assert "256 training images, 100 validation images" in table_rows["06_final"][-1]
    assert "images" not in table_rows["08_in_minutes"][-1]


def on(device):
    return {"starts": [Start("", 1, device, {})]}


def test_picture_of_the_recipes_has_a_line_for_each_device_and_only_runs_on_all_images(tmp_path, put_run):
    for seed, device in enumerate(("T4", "T4", "$CPU$")):
        put_run(tmp_path, "08_in_minutes", 0.75 + seed / 100, seed=seed, **ALL_IMAGES, **on(device))
    others = ({"data": "synthetic"}, {"val_size": 5000}, {"holdout": 5000}, {"train_size": 5000})
    for seed, change in enumerate(others, start=3):
        put_run(tmp_path, "08_in_minutes", 0.5, seed=seed, **{**ALL_IMAGES, **change})
    for panel in figures.draw_recipes(run_list.runs_by_name([tmp_path])).axes:
        lines = panel.lines[:-2]
        assert [list(line.get_ydata()) for line in lines] == [[0.75], [0.76], [0.77]]
        assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]
        labels = [line.get_label() for line in lines if not line.get_label().startswith("_")]
        assert labels == ["08_in_minutes, 2 seeds: T4", "08_in_minutes: $CPU$"]
    for seed in (0, 1, 2):
        (tmp_path / "08_in_minutes" / f"seed-{seed}" / "run.json").write_text("{")
    with pytest.raises(Error, match="holds no run"):
        save_figures(tmp_path, tmp_path / "figures")


def test_longest_run_of_an_experiment_is_drawn(tmp_path, put_run, monkeypatch):
    pictures = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: pictures.update({path.stem: figure}))
    put_run(tmp_path, "05_ascending_kernels", 0.25, 0.5, **ALL_IMAGES, **on("T4"))
    # Neither is the longest: a trial is drawn only if there is nothing else, and says so.
    put_run(tmp_path, "05_ascending_kernels", *[0.25] * 9, seed=1, **{**ALL_IMAGES, "train_size": 512})
    put_run(tmp_path, "01_descending_kernels", 0.25, **{**ALL_IMAGES, "train_size": 512}, **on("T4"))
    put_run(tmp_path, "06_final", 0.5, 0.75, **ALL_IMAGES, **on("T4"))
    put_run(tmp_path, "06_final", *[0.875] * 700, seed=1, **ALL_IMAGES, **on("H100"))
    put_run(tmp_path, "08_in_minutes", 0.75, **ALL_IMAGES, **on("T4"))
    save_figures(tmp_path, tmp_path / "figures")
    assert pictures["loss"].axes[0].get_title() == "06_final/seed-1"
    for name in ("validation", "seconds"):
        (axes,) = pictures[name].axes
        assert [len(line.get_xdata()) for line in axes.lines] == [1, 2, 700]
        assert axes.get_xscale() == "log"
    # The seconds of the two devices differ a hundredfold.
    assert axes.get_yscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    trial = "01_descending_kernels, 512 training images: T4"
    assert labels == [trial, "05_ascending_kernels: T4", "06_final: H100"]
    labels = [line.get_label() for line in pictures["recipes"].axes[0].lines[:2]]
    assert labels == ["06_final: H100", "08_in_minutes: T4"]
    (tmp_path / "06_final" / "seed-1" / "beside-other-work.txt").write_text("tests")
    save_figures(tmp_path, tmp_path / "figures")
    assert [line.get_label() for line in pictures["seconds"].axes[0].lines] == [trial, "05_ascending_kernels: T4"]
    with pytest.raises(Error, match="expected a folder for the pictures"):
        save_figures(tmp_path, tmp_path / "06_final" / "seed-1" / "beside-other-work.txt")


def test_equally_long_runs_are_drawn_on_linear_axes(results, monkeypatch, tmp_path):
    pictures = {}
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: pictures.update({path.stem: figure}))
    save_figures(results, tmp_path)
    assert {pictures[name].axes[0].get_xscale() for name in ("validation", "seconds")} == {"linear"}


@pytest.mark.parametrize(
    ("seconds", "cell"), [("93.4", "93"), ("9.96", "10"), ("9.94", "9.9"), ("0.384", "0.38"), ("0", "0")]
)
def test_seconds_have_decimals_below_ten(tmp_path, put_run, seconds, cell):
    run_dir = put_run(tmp_path, "06_final", 0.5, 0.5, **on("T4"))
    lines = (run_dir / "history.csv").read_text().splitlines()
    rest = [f"{line.rpartition(',')[0]},{seconds}" for line in lines[1:]]
    (run_dir / "history.csv").write_text("\n".join([lines[0], *rest, ""]))
    assert rows(summarize(tmp_path))["06_final"][5] == cell


def test_seconds_of_a_run_on_two_devices_are_not_averaged(tmp_path, put_run):
    # Epoch 3 was lost on the T4 and trained again on the CPU.
    starts = [Start("", first, device, {}) for device, first in (("T4", 1), ("T4", 3), ("CPU", 3))]
    run_dir = put_run(tmp_path, "06_final", *[0.5] * 5, starts=starts)
    history = read_history(run_dir / "history.csv")
    history["seconds"] = [100.0, 0.5, 90.0, 40.0, 60.0]
    write_history(run_dir / "history.csv", history)
    assert rows(summarize(tmp_path))["06_final"][5] == "0.5 on T4; 50 on CPU"


def test_folder_without_runs_is_reported(tmp_path, run_cli):
    assert summarize(tmp_path).count("not yet measured") == len(EXPERIMENTS)
    with pytest.raises(Error, match="holds no run"):
        save_figures(tmp_path, tmp_path / "figures")
    refused = run_cli("summary", tmp_path / "nowhere")
    assert refused.returncode == 2
    assert "does not exist" in refused.stderr


@pytest.fixture
def put_run(results):
    """Write a run with this name, seed, validation accuracies and changes of its `run.json` into a folder."""
    record = RunFolder(results / "06_final" / "seed-0").read_record()

    def put_run(folder, name, *accuracies, seed=0, epochs=3, starts=record.starts, **changes):
        run_dir = folder / name / f"seed-{seed}"
        run_dir.mkdir(parents=True)
        write_history(run_dir / "history.csv", history_of(*accuracies) if accuracies else empty_history())
        experiment = replace(record.experiment, epochs=epochs)
        changed = replace(record, experiment=experiment, seed=seed, starts=tuple(starts), **changes)
        RunFolder(run_dir).write_record(changed)
        return run_dir

    return put_run


@pytest.fixture
def folders(tmp_path, put_run, monkeypatch):
    """The runs of a session, of Drive and of the project; all three have `06_final/seed-0`."""
    own, drive, shipped = (tmp_path / name for name in ("runs", "drive", "shipped"))
    for module in (run_list, measured_runs):
        monkeypatch.setattr(module, "shipped_results", lambda: shipped)
    put_run(own, "06_final", 0.25, 0.5)
    put_run(own, "my_variant", 0.75)
    put_run(drive, "06_final", 0.125)
    put_run(drive, "06_final", 0.375, 0.25, seed=10)
    put_run(drive, "06_final", 0.625, seed=2)
    put_run(shipped, "06_final", 0.875, 0.75, 0.9375)
    put_run(shipped, "01_descending_kernels", 0.6875)
    return own, drive, shipped


def measured_of(table, name):
    """Return the rows of an experiment without the article's value: last epoch, best, epochs."""
    return [[cells[2], *cells[4:6]] for cells in all_rows(table) if cells[0] == f"`{name}`"]


def test_run_in_several_folders_counts_from_the_first_folder(folders):
    own, drive, _ = folders
    others = [["0.6250", "0.6250 (epoch 1)", "1 of 3"], ["0.2500", "0.3750 (epoch 1)", "2 of 3"]]
    assert measured_of(summarize(own, drive), "06_final") == [["0.5000", "0.5000 (epoch 2)", "2 of 3"], *others]
    assert measured_of(summarize(drive, own), "06_final") == [["0.1250", "0.1250 (epoch 1)", "1 of 3"], *others]


def test_missing_folder_counts_as_empty(folders, tmp_path):
    own = folders[0]
    assert summarize(tmp_path / "nowhere", own) == summarize(str(own))
    assert summarize(tmp_path / "nowhere").count("not yet measured") == len(EXPERIMENTS)


def test_own_variants_are_below_the_articles_experiments_and_have_no_article_value(folders):
    table = summarize(*folders)
    assert list(rows(table)) == [*EXPERIMENTS, "my_variant"]
    assert "| `my_variant` |  | 0.7500 |  | 0.7500 (epoch 1) | 1 of 3 |" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_shipped_run_is_shown_beside_an_own_run_of_the_same_seed(folders):
    own, _, shipped = folders
    last_accuracies = [last for last, *_ in measured_of(summarize(own, shipped), "06_final")]
    assert last_accuracies == ["0.5000", "0.9375"]


def test_run_without_epochs_or_with_a_broken_file_has_a_row(tmp_path, put_run):
    put_run(tmp_path, "06_final")
    (put_run(tmp_path, "06_final", 0.5, seed=1) / "run.json").write_text("{")
    (put_run(tmp_path, "06_final", 0.5, seed=2) / "history.csv").write_text("epoch\n1,2\n")
    (put_run(tmp_path, "06_final", 0.5, seed=3) / "run.json").write_text('{"format": 99}')
    *broken, (history, *_), (record, *_) = measured_of(summarize(tmp_path), "06_final")
    assert broken == [["no epoch is done yet", "", ""], ["its run.json cannot be read", "", ""]]
    assert "history.csv" in history
    assert "format 99" in record


def test_run_that_cannot_be_read_does_not_hide_the_others(tmp_path, put_run, capsys):
    for seed in range(3):
        put_run(tmp_path, "mine", 0.5, seed=seed, epochs=1)
    broken = tmp_path / "mine" / "seed-1" / "history.csv"
    broken.write_text("epoch\n1,2\n")
    assert "40 validation images` | 1 | 2 |" in summarize(tmp_path).seeds
    assert len(plot_luck(tmp_path).axes) == 2
    assert len(explore(tmp_path)._runs) == 2
    assert "mine/seed-1 is left out: " in capsys.readouterr().out
    with pytest.raises(Error, match=re.escape(str(broken))):
        explore(broken.parent)


def test_notebook_shows_the_table_as_markdown(results):
    table = summarize(results)
    assert table._repr_markdown_() == str(table)
    assert table._repr_markdown_().startswith("| experiment | the article reports |")


def test_own_runs_are_found_before_the_shipped_ones(folders, tmp_path):
    own, drive, shipped = folders
    of_final = [own / "06_final" / "seed-0", drive / "06_final" / "seed-2", drive / "06_final" / "seed-10"]
    shipped_final = shipped / "06_final" / "seed-0"
    all_shipped = [shipped / "01_descending_kernels" / "seed-0", shipped_final]
    assert find_runs(own, drive) == [*of_final, own / "my_variant" / "seed-0", *all_shipped]
    assert find_runs(own, str(drive), name="06_final") == [*of_final, shipped_final]
    assert find_runs(tmp_path / "nowhere", "", None) == all_shipped
    assert find_runs(own, name="02_augmentation") == []


def test_trained_runs_are_those_with_a_checkpoint(folders, results):
    trained = find_runs(results, folders[0], trained=True)
    assert trained == [results / "02_augmentation" / "seed-0", results / "06_final" / "seed-0"]


def test_plot_of_a_shipped_run_names_its_device(folders, capsys):
    figure = plot_shipped("06_final")
    device = rows(summarize(folders[2]))["06_final"][-1]
    title = f"3 of 3 epochs on {device}; 0.11 s an epoch; best 0.9375 (epoch 3), last 0.9375"
    assert figure.get_suptitle() == title
    curves = {line.get_label(): line for line in figure.axes[1].lines}
    assert curves["06_final/seed-0: validation"].get_ydata().tolist() == [0.875, 0.75, 0.9375]
    assert plot_shipped(ABLATIONS["01_descending_kernels"]).axes
    assert capsys.readouterr().out == ""


def test_longest_shipped_run_is_drawn(folders, put_run):
    put_run(folders[2], "06_final", *[0.5] * 20, seed=1, epochs=20)
    assert plot_shipped("06_final").get_suptitle().startswith("20 of 20 epochs on ")


def test_run_that_is_not_shipped_is_reported(folders, capsys):
    assert plot_shipped("02_augmentation") is None
    assert capsys.readouterr().out == "No measured run of 02_augmentation comes with the project yet.\n"
    with pytest.raises(Error, match="09_none"):
        plot_shipped("09_none")


def test_shipped_results_are_found_in_a_checkout():
    assert run_list.shipped_results().name == "results"
    assert run_list.shipped_results().is_dir()


def test_lines_for_a_terminal_hold_no_control_codes():
    made = table.as_table(("name", "on"), [("`a`", "a GPU \x1b[2J of\nmine"), ("`b`", "")])
    assert table.as_table(("on",), [("\ud800 日本",)]).endswith("| ? 日本 |")
    assert made.in_lines(60).splitlines() == ["a", "    on a GPU ?[2J of mine", "b"]
    assert max(map(len, table.as_table(("name", "on"), [("a", "word " * 50)]).in_lines(40).splitlines())) <= 40
