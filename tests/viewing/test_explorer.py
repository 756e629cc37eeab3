"""The explorer's controls, view and picture always agree, whatever a person presses, drags or types."""

import asyncio
import shutil

import pytest

from colabcnn import Error, explore
from colabcnn.store.history import empty_history, write_history
from colabcnn.viewing import explorer
from colabcnn.viewing.curves import COLOURS
from support.runs import history_of

pytestmark = pytest.mark.versions

BLUE, ORANGE = (colour.lower() for colour in COLOURS[:2])
PNG = b"\x89PNG\r\n\x1a\n"


def write_run(folder, epochs, best=60):
    """Write a history whose validation accuracy is 0.7, and 0.88 in the best epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    history = history_of(*(0.88 if epoch == best else 0.7 for epoch in range(1, epochs + 1)))
    write_history(folder / "history.csv", history)
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs of 100 epochs, whose best epochs are 40 and 60."""
    write_run(tmp_path / "runs" / "02_augmentation" / "seed-0", 100, best=40)
    write_run(tmp_path / "runs" / "06_final" / "seed-0", 100)
    return tmp_path / "runs"


@pytest.fixture
def shown(runs):
    return explore(runs)


def set_from_page(control, value):
    """Set a control as a browser does; for a choice the browser sends its index."""
    state = {"index": control.options.index(value)} if hasattr(control, "options") else {"value": value}
    control.set_state(state)


def svg_of(shown, folder):
    """Save the picture as SVG, where Matplotlib keeps each text as a comment; return its content."""
    shown.save(folder / "shown.svg")
    return (folder / "shown.svg").read_text()


def assert_consistent(shown):
    view, controls = shown.view, shown.controls
    assert (controls.metric.value, controls.smoothing.value) == (view.metric, view.smoothing)
    assert (controls.training.value, controls.validation.value) == (view.training, view.validation)
    assert controls.line_on.value == (view.line is not None)
    assert view.line in (None, controls.line.value)
    assert controls.epochs.value == (controls.first.value, controls.last.value) == view.epochs
    assert (controls.epochs.min, controls.epochs.max) == (1, shown.last_epoch)
    assert controls.values.value == view.value_range
    assert (controls.values.min, controls.values.max) == shown.limits
    assert (controls.low.value, controls.high.value) == pytest.approx(view.value_range, abs=1e-4)
    low, high = (f"{end:.4g}" for end in view.value_range)
    caption = f"{view.metric} from {low} to {high}, epochs {view.epochs[0]} to {view.epochs[1]}"
    assert controls.caption.value == caption


def test_complete_run_is_shown_first(shown):
    assert list(shown.histories) == shown.labels == ["02_augmentation/seed-0", "06_final/seed-0"]
    assert (shown.view.metric, shown.view.epochs, shown.view.value_range) == ("accuracy", (1, 100), (0.0, 1.0))
    assert shown.controls.image.value[:8] == PNG
    assert shown.controls.runs["06_final/seed-0"].description == "06_final/seed-0: best 0.8800, epoch 60"
    assert_consistent(shown)


@pytest.mark.parametrize(
    ("control", "value", "changed"),
    [
        ("metric", "loss", {"metric": "loss", "value_range": (0.0, 0.35)}),
        ("training", False, {"training": False}),
        ("validation", False, {"validation": False}),
        ("smoothing", 9, {"smoothing": 9}),
        ("line_on", True, {"line": 0.9}),
        ("line", 0.8, {"line": 0.8}),
        ("epochs", [20, 30], {"epochs": (20, 30)}),
        ("first", 20, {"epochs": (20, 100)}),
        ("last", 30, {"epochs": (1, 30)}),
        ("values", [0.2, 0.8], {"value_range": (0.2, 0.8)}),
        ("low", 0.2, {"value_range": (0.2, 1.0)}),
        ("high", 0.8, {"value_range": (0.0, 0.8)}),
    ],
)
def test_each_control_changes_the_view_the_other_controls_and_the_picture(shown, control, value, changed):
    before, picture = shown.view, shown.controls.image.value
    set_from_page(getattr(shown.controls, control), value)
    assert vars(shown.view) == {**vars(before), **changed}
    assert shown.controls.image.value != picture
    assert_consistent(shown)
    shown.controls.back.click()
    assert shown.view == before
    assert shown.controls.image.value == picture
    assert_consistent(shown)


@pytest.mark.parametrize(
    ("control", "value", "field", "expected"),
    [
        ("first", -7, "epochs", (1, 100)),
        ("first", 1000, "epochs", (99, 100)),
        ("last", 1000, "epochs", (1, 100)),
        ("last", 0, "epochs", (1, 2)),
        ("low", -3.0, "value_range", (0.0, 1.0)),
        ("high", 7.0, "value_range", (0.0, 1.0)),
    ],
)
def test_typed_number_out_of_range_is_clipped(shown, control, value, field, expected):
    set_from_page(getattr(shown.controls, control), value)
    assert getattr(shown.view, field) == expected
    assert_consistent(shown)


def test_typed_numbers_in_the_wrong_order_are_swapped(shown):
    set_from_page(shown.controls.epochs, [40, 60])
    set_from_page(shown.controls.first, 80)
    assert shown.view.epochs == (60, 80)
    set_from_page(shown.controls.values, [0.4, 0.6])
    set_from_page(shown.controls.high, 0.1)
    assert shown.view.value_range == (0.1, 0.4)
    assert_consistent(shown)


def test_range_of_one_value_is_widened(shown):
    set_from_page(shown.controls.epochs, [40, 40])
    set_from_page(shown.controls.values, [0.5, 0.5])
    assert shown.view.epochs == (39, 41)
    low, high = shown.view.value_range
    assert low < 0.5 < high


def test_back_undoes_a_drag_as_one_step(shown, monkeypatch):
    monkeypatch.setattr(explorer, "GESTURE_SECONDS", 60)  # On a busy machine one picture may take a second.
    shown.controls.views["around the best"].click()
    start = shown.view
    for first in range(36, 50):
        set_from_page(shown.controls.epochs, [first, 85])
    assert shown.view.epochs == (49, 85)
    shown.controls.back.click()
    assert shown.view == start
    shown.controls.back.click()
    assert shown.view.epochs == (1, 100)
    shown.controls.back.click()
    assert shown.view.epochs == (1, 100)


def test_back_undoes_two_controls_and_two_drags_separately(shown, monkeypatch):
    set_from_page(shown.controls.epochs, [20, 100])
    set_from_page(shown.controls.values, [0.5, 1.0])
    shown.controls.back.click()
    assert (shown.view.epochs, shown.view.value_range) == ((20, 100), (0.0, 1.0))
    monkeypatch.setattr(explorer, "GESTURE_SECONDS", -1)
    set_from_page(shown.controls.epochs, [30, 100])
    set_from_page(shown.controls.epochs, [40, 100])
    shown.controls.back.click()
    assert shown.view.epochs == (30, 100)


def test_zoom_out_doubles_the_range_around_the_same_centre(shown):
    set_from_page(shown.controls.epochs, [40, 60])
    set_from_page(shown.controls.values, [0.4, 0.6])
    shown.controls.zoom_out.click()
    assert shown.view.epochs == (29, 71)
    assert shown.view.value_range == pytest.approx((0.3, 0.7))
    for _ in range(5):
        shown.controls.zoom_out.click()
    assert (shown.view.epochs, shown.view.value_range) == ((1, 100), (0.0, 1.0))
    assert_consistent(shown)


@pytest.mark.parametrize(
    ("name", "metric", "epochs", "value_range", "line"),
    [
        ("loss", "loss", (1, 100), (0.0, 0.35), None),
        ("accuracy", "accuracy", (1, 100), (0.0, 1.0), None),
        ("enlarged", "accuracy", (1, 100), (0.73, 0.98), None),
        ("around the best", "accuracy", (15, 65), (0.85, 0.91), 0.9),
    ],
)
def test_buttons_set_the_articles_views(shown, name, metric, epochs, value_range, line):
    set_from_page(shown.controls.metric, "loss" if metric == "accuracy" else "accuracy")
    set_from_page(shown.controls.smoothing, 5)
    set_from_page(shown.controls.training, False)
    shown.controls.views[name].click()
    view = shown.view
    assert (view.metric, view.epochs, view.line) == (metric, epochs, line)
    assert view.value_range == pytest.approx(value_range)
    assert (view.smoothing, view.training) == (5, False)
    assert_consistent(shown)


def test_other_metric_starts_with_its_own_range_of_values(shown):
    set_from_page(shown.controls.epochs, [40, 60])
    set_from_page(shown.controls.values, [0.5, 0.9])
    set_from_page(shown.controls.line_on, True)
    set_from_page(shown.controls.metric, "loss")
    assert (shown.view.epochs, shown.view.value_range, shown.view.line) == ((40, 60), (0.0, 0.35), None)
    assert_consistent(shown)


def test_hidden_run_does_not_change_the_colours_of_the_others(shown, tmp_path):
    both = svg_of(shown, tmp_path)
    assert BLUE in both
    assert ORANGE in both
    picture = shown.controls.image.value
    set_from_page(shown.controls.runs["02_augmentation/seed-0"], False)
    assert shown.labels == ["06_final/seed-0"]
    assert shown.controls.image.value != picture
    one = svg_of(shown, tmp_path)
    assert BLUE not in one
    assert ORANGE in one
    assert "02_augmentation" not in one
    shown.controls.views["around the best"].click()
    assert shown.view.epochs == (35, 85)
    set_from_page(shown.controls.runs["06_final/seed-0"], False)
    shown.controls.views["around the best"].click()
    assert shown.controls.image.value[:8] == PNG
    shown.controls.views["accuracy"].click()
    for box in shown.controls.runs.values():
        set_from_page(box, True)
    assert shown.controls.image.value == picture


def test_refresh_follows_a_running_run(shown, runs):
    write_run(runs / "06_final" / "seed-0", 120)
    shown.controls.refresh.click()
    assert shown.view.epochs == (1, 120)
    set_from_page(shown.controls.first, 90)
    write_run(runs / "06_final" / "seed-0", 140)
    shown.controls.refresh.click()
    assert shown.view.epochs == (90, 140)
    assert_consistent(shown)


def test_refresh_keeps_a_zoom(shown, runs):
    set_from_page(shown.controls.epochs, [40, 60])
    set_from_page(shown.controls.values, [0.5, 0.9])
    write_run(runs / "06_final" / "seed-0", 120)
    shown.controls.refresh.click()
    assert (shown.view.epochs, shown.view.value_range, shown.last_epoch) == ((40, 60), (0.5, 0.9), 120)
    assert_consistent(shown)


def test_refresh_adds_new_runs_and_removes_deleted_ones(shown, runs):
    set_from_page(shown.controls.runs["02_augmentation/seed-0"], False)
    write_run(runs / "mine" / "seed-3", 30)
    shown.controls.refresh.click()
    assert list(shown.controls.runs) == ["02_augmentation/seed-0", "06_final/seed-0", "mine/seed-3"]
    assert shown.labels == ["06_final/seed-0", "mine/seed-3"]
    shutil.rmtree(runs / "02_augmentation")
    shown.controls.refresh.click()
    assert list(shown.controls.runs) == shown.labels == ["06_final/seed-0", "mine/seed-3"]
    set_from_page(shown.controls.runs["mine/seed-3"], False)
    assert shown.labels == ["06_final/seed-0"]


def test_zoom_into_missing_epochs_is_clipped(shown, runs):
    """The epochs are missing as after `start_over`."""
    set_from_page(shown.controls.epochs, [40, 60])
    set_from_page(shown.controls.first, 50)
    for name in ("02_augmentation", "06_final"):
        write_run(runs / name / "seed-0", 10)
    for button in (shown.controls.refresh, shown.controls.back):
        button.click()
        assert shown.view.epochs == (9, 10)
        assert_consistent(shown)
    shown.controls.back.click()
    assert shown.view.epochs == (1, 10)


def test_deleted_runs_are_reported_and_their_curves_stay(shown, runs):
    picture = shown.controls.image.value
    shutil.rmtree(runs)
    shown.controls.refresh.click()
    assert f"<b>{runs} does not exist" in shown.controls.caption.value
    assert shown.controls.image.value == picture
    shown.controls.views["loss"].click()
    assert_consistent(shown)


@pytest.mark.parametrize("epochs", [0, 1])
def test_run_that_has_just_started_is_shown_and_grows(tmp_path, epochs):
    folder = tmp_path / "mine"
    write_run(folder, epochs) if epochs else folder.mkdir()
    if not epochs:
        write_history(folder / "history.csv", empty_history())
    shown = explore(folder)
    assert shown.view.epochs == (1, 2)
    for button in shown.controls.views.values():
        button.click()
        assert shown.controls.image.value[:8] == PNG
        assert_consistent(shown)
    shown.controls.views["accuracy"].click()
    shown.controls.zoom_out.click()
    write_run(folder, 5)
    shown.controls.refresh.click()
    assert shown.view.epochs == (1, 5)
    assert_consistent(shown)


def test_fifty_quick_changes_draw_at_most_two_pictures_and_the_last_is_the_newest(runs):
    async def change_in_kernel():
        shown = explore(runs)
        assert shown.controls.image.value[:8] == PNG, "the first picture waits for no timer"
        for first in range(2, 52):
            set_from_page(shown.controls.epochs, [first, 90])
            assert shown.controls.first.value == first
        while shown.draws == 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return shown, shown.draws - 1

    shown, draws = asyncio.run(change_in_kernel())
    assert 1 <= draws <= 2
    assert_consistent(shown)
    fresh = explore(runs)
    fresh.change(shown.view)
    assert shown.view.epochs == (51, 90)
    assert shown.controls.image.value == fresh.controls.image.value


def test_saved_svg_contains_the_legend_and_a_png_is_a_png(shown, tmp_path):
    for name in ("<curves>.png", "curves.svg"):
        set_from_page(shown.controls.file, str(tmp_path / name))
        shown.controls.save.click()
        escaped = name.replace("<", "&lt;").replace(">", "&gt;")
        assert shown.controls.caption.value == f"Saved as {tmp_path / escaped}"
    assert (tmp_path / "<curves>.png").read_bytes()[:8] == PNG
    svg = (tmp_path / "curves.svg").read_text()
    assert svg.startswith("<?xml")
    for text in (
        "training",
        "validation",
        "02_augmentation/seed-0: best 0.8800, epoch 40",
        "06_final/seed-0: best 0.8800, epoch 60",
    ):
        assert f"<!-- {text} -->" in svg


@pytest.mark.parametrize(("name", "reason"), [("curves.xyz", "xyz"), ("nowhere/curves.png", "cannot be written")])
def test_failed_save_is_reported_below_the_picture(shown, tmp_path, name, reason):
    set_from_page(shown.controls.file, str(tmp_path / name))
    shown.controls.save.click()
    assert shown.controls.caption.value.startswith(f"<b>{tmp_path / name}")
    assert reason in shown.controls.caption.value
    with pytest.raises(Error, match=reason):
        shown.save(tmp_path / name)


def test_markup_in_a_folder_name_is_shown_as_text(tmp_path):
    shown = explore(write_run(tmp_path / "<b>$x$&amp;", 3))
    (box,) = shown.controls.runs.values()
    assert not set("<>$&") & set(box.description)
    assert box.description.endswith(": best 0.7000, epoch 1")


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(Error, match="holds no run"):
        explore(tmp_path)
    with pytest.raises(Error, match="does not exist"):
        explore(tmp_path / "nowhere")
    with pytest.raises(Error, match="there is no run to show"):
        explore()
