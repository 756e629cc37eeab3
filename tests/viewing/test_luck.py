"""The seeds' table counts complete runs that differ in nothing but the seed, and claims no more than they support."""

from dataclasses import replace

import pytest
import scipy.stats

from colabcnn import ABLATIONS, RECIPES, Error, plot_luck, shipped_results
from colabcnn.store.history import write_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.viewing.luck import COLUMNS, least_share, seed_groups
from colabcnn.viewing.measured_runs import read_measured_run
from colabcnn.viewing.table import summarize
from support.runs import history_of, make_record

pytestmark = pytest.mark.versions

EXPERIMENT = replace(RECIPES["08_in_minutes"], epochs=3)


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes a run of three epochs with these validation accuracies."""

    def write_run(seed, *accuracies, root="results", experiment=EXPERIMENT, **changes):
        folder = RunFolder(tmp_path / root / experiment.name / f"seed-{seed}")
        folder.path.mkdir(parents=True)
        folder.write_record(make_record(experiment, seed=seed, **changes))
        write_history(folder.history_csv, history_of(*accuracies))
        return tmp_path / root

    return write_run


def row_of(table):
    lines = table.seeds.splitlines()
    assert lines[0] == f"| {' | '.join(COLUMNS)} |"
    (row,) = lines[2:]
    return dict(zip(COLUMNS, row[2:-2].split(" | "), strict=True))


def test_table_has_the_distribution_over_the_seeds(write_run):
    write_run(0, 0.5, 0.9, 0.91)
    write_run(1, 0.5, 0.92, 0.89)
    results = write_run(2, 0.90, 0.85, 0.90)
    assert row_of(summarize(results)) == {
        "experiment": "`08_in_minutes`",
        "epochs": "3",
        "seeds": "3",
        "last epoch": "0.9000 ± 0.0100",
        "lowest": "0.8900",
        "highest": "0.9100",
        "ended at 0.90 or above": "2 of 3: at least 13 %",
        "first epoch at 0.90": "1 to 2",
        "best of run": "0.9100 ± 0.0100",
        "best minus last": "+0.0100",
    }
    assert summarize(results).seeds in summarize(results)._repr_markdown_()


def test_runs_that_are_not_complete_or_not_the_same_are_not_counted(write_run):
    write_run(0, 0.5, 0.9, 0.91)
    write_run(1, 0.5, 0.9, 0.91, holdout=5000, train_size=45_000, val_size=5000)
    results = write_run(2, 0.5, 0.9)
    assert summarize(results).seeds == ""
    write_run(3, 0.4, 0.5, 0.6, device="GPU", precision="mixed_float16")
    row = row_of(summarize(results))
    assert (row["seeds"], row["ended at 0.90 or above"]) == ("2", "1 of 2: at least 2 %")
    assert row["first epoch at 0.90"] == "2 (1 of 2)"


def test_seed_that_two_folders_hold_counts_once(write_run):
    mine, drive = write_run(0, 0.5, 0.6, 0.7), write_run(0, 0.1, 0.2, 0.3, root="drive")
    write_run(1, 0.5, 0.6, 0.7)
    (runs,) = seed_groups([mine, drive]).values()
    assert [run.history["val_accuracy"][-1] for run in runs] == [0.7, 0.7]


@pytest.mark.parametrize(
    ("successes", "count", "share"),
    [(3, 3, 0.05 ** (1 / 3)), (299, 299, 0.05 ** (1 / 299)), (0, 5, 0.0), (8, 10, 0.493), (1, 2, 1 - 0.95**0.5)],
)
def test_share_is_the_lower_end_of_the_exact_interval(successes, count, share):
    assert least_share(successes, count) == pytest.approx(share, abs=5e-4)


def test_99_percent_is_said_from_299_runs_on():
    assert least_share(298, 298) < 0.99 <= least_share(299, 299)


def test_figure_shows_best_against_last_and_the_growth_of_the_expected_maximum(write_run):
    write_run(0, 0.5, 0.8, 0.6)
    write_run(1, 0.5, 0.6, 0.7)
    results = write_run(0, 0.3, 0.4, 0.5, experiment=replace(ABLATIONS["06_final"], epochs=3))
    figure = plot_luck(results)
    scatter, growth = figure.axes
    six, eight, diagonal = ([list(line.get_xdata()), list(line.get_ydata())] for line in scatter.get_lines())
    assert (six, eight) == ([[0.5], [0.5]], [[0.6, 0.7], [0.8, 0.7]])
    assert diagonal[0] == diagonal[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["06_final", "08_in_minutes, 2 seeds"]
    assert list(growth.get_lines()[0].get_ydata()) == [0, 0, 0]
    assert list(growth.get_lines()[2].get_ydata()) == pytest.approx([0, 0.1, 0.1])


def test_figure_of_no_complete_run_is_refused(write_run):
    with pytest.raises(Error, match=r"there is no complete run in .*results; train one to its last epoch"):
        plot_luck(write_run(0, 0.5))


def test_shipped_runs_have_several_seeds():
    assert "08_in_minutes" in summarize(shipped_results()).seeds


def test_seeds_that_somebody_shared_are_counted_as_such(write_run):
    write_run(0, 0.5, 0.6, 0.7)
    results = write_run(1, 0.5, 0.6, 1.0)
    (results / "08_in_minutes" / "seed-1" / "shared.json").write_text("{}")
    assert row_of(summarize(results))["seeds"] == "2 (1 shared by somebody)"
    assert [text.get_text() for text in plot_luck(results).legends[0].get_texts()] == [
        "08_in_minutes, 2 seeds (1 shared by somebody)"
    ]


def test_runs_of_one_name_with_other_settings_are_a_group_of_their_own(write_run):
    for seed in range(2):
        write_run(seed, 0.5, 0.6, 0.7)
    results = write_run(2, 0.5, 0.6, 0.7, experiment=replace(EXPERIMENT, dropout=0.5))
    groups = seed_groups([results])
    assert {name: len(runs) for name, runs in groups.items()} == {
        "08_in_minutes": 2,
        "08_in_minutes, other settings (2)": 1,
    }
    write_run(3, 0.5, 0.6, 0.7, experiment=replace(EXPERIMENT, dropout=0))  # As 0.0.
    assert len(seed_groups([results])["08_in_minutes"]) == 3


def test_legend_of_long_names_stays_within_the_figure(write_run):
    for seed in range(4):
        long = replace(EXPERIMENT, name="08_quarter_without_label_smoothing")
        results = write_run(seed, 0.5, 0.6, 0.7, experiment=long, train_size=5000 + seed % 2, val_size=1000)
    figure = plot_luck(results)
    figure.draw_without_rendering()
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1


def test_share_of_many_seeds_is_computed():
    assert least_share(515, 1100) == pytest.approx(scipy.stats.beta.ppf(0.05, 515, 1100 - 515 + 1), abs=1e-9)


def test_epoch_belongs_to_the_last_start_that_trained_it(write_run):
    results = write_run(0, 0.5, 0.6, 0.7, 0.8)
    run = read_measured_run(results / "08_in_minutes" / "seed-0")
    starts = [replace(run.record.starts[0], device=f"device {n}", first_epoch=e) for n, e in enumerate((1, 3, 2, 4, 4))]
    run = replace(run, record=replace(run.record, starts=tuple(starts)))
    run.history["seconds"] = [1.0, 2.0, 3.0, 4.0]
    assert run.seconds_by_device() == {"device 0": 1.0, "device 2": 3.0, "device 4": 4.0}
