"""The pages show the values of the runs in `results/`, and the generator is correct on synthetic runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import ingredients
import orderings
import result_tables as tables
import update_docs
from colabcnn import Error
from colabcnn.experiments.catalog import ABLATIONS, EXPERIMENTS, RECIPES
from colabcnn.experiments.experiment import Experiment
from colabcnn.store.history import COLUMNS, write_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_record import Start
from support.runs import make_record

ROOT = Path(__file__).resolve().parents[2]


def put_run(folder, name, accuracies, seed=0, device="CPU", seconds=2.0, training=0.5, settings=None, **changes):
    """Write a complete run on all of CIFAR-10 with these validation accuracies into a folder."""
    run_dir = folder / name / f"seed-{seed}"
    run_dir.mkdir(parents=True)
    count = len(accuracies)
    history = {column: [1.0] * count for column in COLUMNS}
    history |= {"epoch": list(range(1, count + 1)), "val_accuracy": list(accuracies), "accuracy": [training] * count}
    write_history(run_dir / "history.csv", history | {"seconds": [50.0 + seconds, *[seconds] * (count - 1)]})
    experiment = EXPERIMENTS.get(name) or Experiment(name=name)
    experiment = replace(experiment, **{"epochs": count} | (settings or {}))
    record = make_record(experiment, device=device, seed=seed, **changes)
    RunFolder(run_dir).write_record(record)
    return run_dir


def put_recipe(folder, last, seed=0, flip_averaged=None, **options):
    run_dir = put_run(folder, "08_in_minutes", [0.5] * 9 + [last], seed=seed, **options)
    if flip_averaged is not None:
        measured = {"epoch": 10, "flip_averaged_accuracy": flip_averaged}
        (run_dir / "test.json").write_text(json.dumps({"test_size": 10_000, "last_epoch": measured}))


def rows(table):
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {cells[0].strip("`"): cells[1:] for cells in (lines[0], *lines[2:])}


def test_pages_show_the_values_of_the_runs():
    assert update_docs.update(ROOT, check=True) == [], "run python tools/update_docs.py"


def test_new_run_changes_the_pages_once(tmp_path):
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with_devices = ["README.md", "README.ja.md", "docs/results.md"]
    for path in with_devices[:2]:
        shutil.copy(ROOT / path, tmp_path)
    pages = [*with_devices, "results/README.md"]
    put_recipe(tmp_path / "results", 0.95, seed=99, device="<b>GPU")
    assert update_docs.update(tmp_path, check=True) == pages
    assert update_docs.update(tmp_path) == pages
    assert update_docs.update(tmp_path) == []
    for path in pages:
        # Text outside of the blocks is not changed.
        before, after = (
            (root / path).read_text(encoding="utf-8").partition("<!-- begin")[0] for root in (ROOT, tmp_path)
        )
        assert before == after
    for path in with_devices:
        page = (tmp_path / path).read_text(encoding="utf-8")
        assert "&lt;b&gt;GPU" in page
        assert "<b>GPU" not in page


def test_experiments_are_described_by_their_fields():
    table = rows(tables.experiments_table())
    assert list(table)[1:] == list(ABLATIONS)
    assert table["01_descending_kernels"][:3] == ["5x5, 3x3, 1x1", "none", "none"]
    assert table["02_augmentation"][:3] == ["5x5, 3x3, 1x1", "none", "rotation, shifts, flip"]
    assert table["06_final"][:3] == ["1x1, 3x3, 5x5", "0.25", "rotation, shifts, flip, channel shift"]
    assert table["06_final"][3] == ABLATIONS["06_final"].reported.in_words()


def test_block_is_filled_and_the_rest_is_kept():
    page = "above\n<!-- begin a b -->\nold\n<!-- end a b -->\nbelow\n"
    filled = "above\n<!-- begin a b -->\n\nnew\n\n<!-- end a b -->\nbelow\n"
    assert (
        update_docs.fill(page, {"a b": "new"}, "page.md")
        == update_docs.fill(filled, {"a b": "new"}, "page.md")
        == filled
    )


@pytest.mark.parametrize(
    "page", ["", "<!-- begin a -->\n", "<!-- end a -->\n<!-- begin a -->\n", "<!-- begin a -->\n<!-- end a -->\n" * 2]
)
def test_page_without_exactly_one_block_is_refused(page):
    with pytest.raises(Error, match=r"page\.md has no block 'a', or two"):
        update_docs.fill(page, {"a": "new"}, "page.md")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"epochs": 700}}, "has 20 epochs; expected all of its 700"),
        ({"holdout": 5000}, "expected all training images, validated on the test set"),
        ({"train_size": 5000}, "has 5,000 training images; expected all"),
        ({"data": "synthetic"}, "has synthetic images, .*; expected all"),
        ({"settings": {"dropout": 0.5}}, "has experiment.dropout 0.5; expected 0.25, as 06_final has"),
    ],
)
def test_run_that_is_not_the_complete_experiment_is_refused(tmp_path, change, reason):
    put_run(tmp_path, "06_final", [0.5] * 20, **change)
    with pytest.raises(Error, match=f"seed-0 .*{reason}"):
        tables.read_results(tmp_path)


@pytest.mark.parametrize(
    ("relation", "values", "verdict"),
    [
        ("above", (0.03, 0.02, 0.05), "reproduced"),
        ("above", (0.03, 0.02, 0.04), "reproduced, within the noise"),
        ("above", (0.03, -0.02, 0.05), "no clear difference"),
        ("above", (0.0, 0.0, 0.0), "no clear difference"),
        ("above", (-0.03, -0.02, -0.05), "not reproduced"),
        ("below", (-0.03, -0.02, -0.05), "reproduced"),
        ("below", (0.03, 0.02, 0.03), "not reproduced, within the noise"),
        ("not below", (-0.03, -0.02, -0.05), "not reproduced"),
        ("not below", (0.03, 0.02, 0.05), "reproduced"),
    ],
)
def test_verdict_follows_from_signs_and_noise(relation, values, verdict):
    assert orderings.verdict(relation, orderings.Difference(*values, noise=0.04)) == verdict


def test_ordering_compares_the_epochs_that_both_have(tmp_path):
    # The epochs of 02 after epoch 20 do not count beside 20 epochs of 01.
    put_run(tmp_path, "02_augmentation", [0.5] * 19 + [0.75] + [0.9] * 680)
    put_run(tmp_path, "01_descending_kernels", [0.25] * 20)
    put_run(tmp_path, "03_dropout_20", [0.5] * 699 + [1.0])
    table = rows(orderings.orderings_table(tables.read_results(tmp_path)))
    noise = (0.0125) ** 0.5  # The noise of 0.5, 0.5, 0.5, 0.5, 0.75; the other run's epochs do not differ.
    cells = ["20, the first of 02's 700", "1", "+0.5000", "+0.5000", "+0.3000", f"{noise:.4f}", "reproduced"]
    assert table["02 above 01"] == cells
    assert table["03 above 02"][:4] == ["700", "1", "+0.1000", "+0.1000"]
    assert table["03 above 02"][-1] == "no clear difference"
    assert table["04 below 03"] == ["not yet measured", *[""] * 6]
    assert table["the article"][-1] == "after these epochs"


def test_ordering_compares_means_over_the_seeds_of_that_length(tmp_path):
    for seed, (value, count) in enumerate(((0.5, 40), (0.75, 40), (0.9, 20))):
        put_run(tmp_path, "02_augmentation", [value] * count, seed=seed)
    put_run(tmp_path, "01_descending_kernels", [0.5] * 40)
    table = rows(orderings.orderings_table(tables.read_results(tmp_path)))
    assert table["02 above 01"][:5] == ["40", "2 and 1", "+0.1250", "+0.1250", "+0.1250"]
    # Differing seeds are noise, too: the variance of five times 0.5 and five times 0.75, for the mean of two seeds.
    assert table["02 above 01"][5] == f"{(10 * 0.125**2 / 9 / 2) ** 0.5:.4f}"
    assert table["the article"][-1] == "after 40 epochs"


def test_training_is_shown_beside_validation(tmp_path):
    put_run(tmp_path, "01_descending_kernels", [0.1] * 15 + [0.75] * 5, training=1.0)
    put_run(tmp_path, "01_descending_kernels", [0.1] * 5, seed=1)
    table = rows(orderings.training_table(tables.read_results(tmp_path)))
    assert table["01_descending_kernels"] == ["20", "1", "1.0000", "0.7500", "+0.2500"]


def test_final_experiment_is_compared_with_the_article_at_the_same_length(tmp_path):
    put_run(tmp_path, "06_final", [0.95] * 20)
    assert tables.final_table(tables.read_results(tmp_path)) == "A run of `06_final` of 700 epochs is not yet measured."
    accuracies = [0.85] * 650 + [0.89] * 50
    # A history holds the 32-bit number nearest to 0.9, which is below it.
    accuracies[99], accuracies[299], accuracies[399] = 0.8999, 0.8999999761581421, 0.905
    put_run(tmp_path, "06_final", accuracies, seed=1, device="H100", training=0.9612)
    put_run(tmp_path, "06_final", [0.8] * 700, seed=2, device="H100")
    table = rows(tables.final_table(tables.read_results(tmp_path)))
    assert table["700 epochs"] == ["the article", "seed 1", "seed 2"]
    assert table["best of run"] == ["0.9010 (epoch 326)", "0.9050 (epoch 400)", "0.8000 (epoch 1)"]
    assert table["epochs at 0.90 or above"] == ["1", "2", "0"]
    assert table["the first of them"] == ["326", "300", "none"]
    assert table["last epoch"][1:] == ["0.8900", "0.8000"]
    assert table["mean of the last 50"][1:] == ["0.8900", "0.8000"]
    assert table["training, last epoch"] == ["near 0.96", "0.9612", "0.5000"]


def test_recipe_pools_accuracies_but_not_seconds_of_devices(tmp_path):
    put_recipe(tmp_path, 0.8999999761581421, device="CPU", seconds=90, flip_averaged=0.91)
    put_recipe(tmp_path, 0.91, seed=1, device="CPU", seconds=98)
    put_recipe(tmp_path, 0.89, seed=2, device="H100", seconds=0.384, flip_averaged=0.9)
    runs_of = tables.read_results(tmp_path)
    durations = "16 to 17 min on CPU, float32; 54 s on H100, float32"
    table = rows(tables.recipes_table(runs_of))
    assert table["08_in_minutes"] == ["10", "0.9000 ± 0.0100", "0.8900 to 0.9100", "2 of 3", durations]
    assert table["07_without_luck"] == ["60", "not yet measured", "", "", ""]
    pooled = ["10", "3", "0.9000 ± 0.0100", "0.9100 (epoch 10, seed 1)"]
    seconds = "90 to 98 on CPU, float32; 0.38 on H100, float32"
    assert rows(tables.complete_summary_table(runs_of))["08_in_minutes"] == [*pooled, "0.9050 (2 of 3)", seconds]
    (tmp_path / "08_in_minutes" / "seed-1" / "beside-other-work.txt").write_text("tests")
    assert rows(tables.complete_summary_table(runs_of))["08_in_minutes"][-1] == seconds.replace("90 to 98", "90")


def test_run_of_700_epochs_replaces_one_of_20(tmp_path):
    put_run(tmp_path, "06_final", [0.95] * 20)
    put_run(tmp_path, "06_final", [0.8] * 700, seed=1, device="H100")
    table = rows(tables.complete_summary_table(tables.read_results(tmp_path)))
    assert table["06_final"] == ["700", "1", "0.8000", "0.8000 (epoch 1)", "", "2 on H100, float32"]
    in_short = rows(tables.summary_table(tables.read_results(tmp_path)))
    assert list(in_short)[1:] == list(ABLATIONS)
    assert in_short["06_final"][1:] == table["06_final"][:4]
    assert table["05_ascending_kernels"] == ["not yet measured", *[""] * 5]


def test_ingredient_is_compared_with_the_same_seeds(tmp_path):
    for seed, last in enumerate((0.90, 0.91, 0.92)):
        put_recipe(tmp_path, last, seed=seed)
    runs_of = dict(tables.read_results(tmp_path))
    for name, lasts in {"a": (0.86, 0.87), "b": (0.905,), "c": (), "d": (0.96,)}.items():
        for seed, last in enumerate(lasts):
            put_run(tmp_path, name, [last], seed=seed)
    runs_of |= tables.read_results(tmp_path, dict.fromkeys("abcd"))
    block = tables.ingredients_table(runs_of, "08_in_minutes", {name: f"{name} otherwise" for name in "abcd"})
    assert block.startswith(
        "The 3 seeds of `08_in_minutes` differ by up to 0.0200, with a standard deviation of 0.0100"
    )
    table = rows(block)
    assert table["08_in_minutes"][1:3] == ["3", "0.9100 ± 0.0100"]
    # With a standard deviation of 0.01, the mean of two pairs varies by 0.01, one pair by 0.014; clear is twice that.
    assert table["a"] == ["a otherwise", "2", "0.8650 ± 0.0071", "", "-0.0400", "lower"]
    assert table["b"] == ["b otherwise", "1", "0.9050", "", "+0.0050", "no clear difference"]
    assert table["c"] == ["c otherwise", "not yet measured", *[""] * 4]
    assert table["d"][-2:] == ["+0.0600", "higher"]


def test_shorter_trainings_are_listed_by_their_epochs(tmp_path):
    for name, lasts in {"long": (0.91, 0.92), "short": (0.90,), "none": ()}.items():
        for seed, last in enumerate(lasts):
            put_run(tmp_path, name, [last], seed=seed)
    runs_of = tables.read_results(tmp_path, dict.fromkeys(("long", "short", "none")))
    table = rows(tables.fewest_epochs_table({7: runs_of["none"], 8: runs_of["short"], 10: runs_of["long"]}))
    assert [*table.items()][1:] == [
        ("10", ["2", "0.9150 ± 0.0071", "", "0.9100 to 0.9200"]),
        ("8", ["1", "0.9000", "", ""]),
    ]


def test_longer_runs_show_a_held_out_accuracy_in_a_column_of_its_own(tmp_path):
    put_run(tmp_path, "trial", [0.5, 0.91], training=0.93, holdout=5000)
    put_run(tmp_path, "recipe", [0.5, 0.92], training=0.95)
    runs = [
        run
        for kept in tables.read_results(tmp_path, dict.fromkeys(("trial", "recipe")), held_out=True).values()
        for run in kept
    ]
    table = rows(tables.longer_runs_table(runs))
    assert table["trial"] == ["2", "0.9300", "0.9100", ""]
    assert table["recipe"] == ["2", "0.9500", "", "0.9200"]


def test_devices_have_a_row_for_each_combination_of_device_precision_and_versions(tmp_path):
    for seed, precision in ((0, "float32"), (1, "float32"), (2, "mixed_float16"), (3, "float32")):
        put_recipe(tmp_path, 0.9, seed=seed, precision=precision)
    folder = RunFolder(tmp_path / "08_in_minutes/seed-3")
    record = folder.read_record()
    later = replace(record.starts[0], device="a GPU", first_epoch=5)
    folder.write_record(replace(record, starts=(*record.starts, later)))
    lines = [line for line in tables.devices_table(tables.read_results(tmp_path)).splitlines() if "`08" in line]
    assert [line.split(" | ")[1:4] for line in lines] == [
        ["0, 1", "CPU", "float32"],
        ["2", "CPU", "mixed_float16"],
        ["3", "CPU, then a GPU", "float32"],
    ]


def test_interrupted_runs_are_named(tmp_path):
    put_run(tmp_path, "05_ascending_kernels", [0.5] * 20)
    assert tables.resumed_sentences(tables.read_results(tmp_path)) == "No run was interrupted."
    starts = tuple(Start("", epoch, "CPU", {}) for epoch in (1, 3, 11))
    put_run(tmp_path, "06_final", [0.5] * 20, seed=4, starts=starts)
    sentence = "- `06_final`, seed 4, was resumed in epoch 3, 11."
    assert tables.resumed_sentences(tables.read_results(tmp_path)) == sentence


@pytest.mark.parametrize(
    ("seconds", "words"), [((4.12, 4.3), "4.1 to 4.3 s"), ((90 * 60,), "90 min"), ((100, 37_800), "0.028 to 10 h")]
)
def test_longest_duration_sets_the_unit(seconds, words):
    assert tables.duration_in_words(seconds) == words


def test_every_ingredient_has_a_description():
    assert list(ingredients.IN_WORDS) == list(ingredients.WITHOUT)
    assert ingredients.RECIPE is RECIPES["08_in_minutes"]
