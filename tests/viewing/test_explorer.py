"""The explorer's controls, its view and its picture always say the same, whatever is pressed, dragged or typed."""

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
    """Write a history whose validation accuracy is 0.7 but in the best epoch, 0.88."""
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


def from_the_page(control, value):
    """Give a control the value as a browser reports it; of a choice that is its number."""
    chosen = {"index": control.options.index(value)} if hasattr(control, "options") else {"value": value}
    control.set_state(chosen)


def svg_of(shown, folder):
    """Return the text of the picture saved as SVG, in which Matplotlib keeps each text as a comment."""
    shown.save(folder / "shown.svg")
    return (folder / "shown.svg").read_text()


def assert_in_step(shown):
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
    words = f"{view.metric} from {low} to {high}, epochs {view.epochs[0]} to {view.epochs[1]}"
    assert controls.caption.value == words


def test_whole_run_is_shown_at_first(shown):
    assert list(shown.histories) == shown.labels == ["02_augmentation/seed-0", "06_final/seed-0"]
    assert (shown.view.metric, shown.view.epochs, shown.view.value_range) == ("accuracy", (1, 100), (0.0, 1.0))
    assert shown.controls.image.value[:8] == PNG
    assert shown.controls.runs["06_final/seed-0"].description == "06_final/seed-0: best 0.8800, epoch 60"
    assert_in_step(shown)


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
def test_each_control_changes_the_view_the_others_and_the_picture(shown, control, value, changed):
    before, picture = shown.view, shown.controls.image.value
    from_the_page(getattr(shown.controls, control), value)
    assert vars(shown.view) == {**vars(before), **changed}
    assert shown.controls.image.value != picture
    assert_in_step(shown)
    shown.controls.back.click()
    assert shown.view == before
    assert shown.controls.image.value == picture
    assert_in_step(shown)


@pytest.mark.parametrize(
    ("control", "value", "field", "becomes"),
    [
        ("first", -7, "epochs", (1, 100)),
        ("first", 1000, "epochs", (99, 100)),
        ("last", 1000, "epochs", (1, 100)),
        ("last", 0, "epochs", (1, 2)),
        ("low", -3.0, "value_range", (0.0, 1.0)),
        ("high", 7.0, "value_range", (0.0, 1.0)),
    ],
)
def test_typed_number_out_of_range_is_clipped(shown, control, value, field, becomes):
    from_the_page(getattr(shown.controls, control), value)
    assert getattr(shown.view, field) == becomes
    assert_in_step(shown)


def test_typed_numbers_in_the_wrong_order_change_places(shown):
    from_the_page(shown.controls.epochs, [40, 60])
    from_the_page(shown.controls.first, 80)
    assert shown.view.epochs == (60, 80)
    from_the_page(shown.controls.values, [0.4, 0.6])
    from_the_page(shown.controls.high, 0.1)
    assert shown.view.value_range == (0.1, 0.4)
    assert_in_step(shown)


def test_span_of_one_value_is_widened(shown):
    from_the_page(shown.controls.epochs, [40, 40])
    from_the_page(shown.controls.values, [0.5, 0.5])
    assert shown.view.epochs == (39, 41)
    low, high = shown.view.value_range
    assert low < 0.5 < high


def test_back_undoes_a_drag_as_one_step(shown, monkeypatch):
    monkeypatch.setattr(explorer, "GESTURE_SECONDS", 60)  # On a busy machine a single picture may take a second.
    shown.controls.views["around the best"].click()
    start = shown.view
    for first in range(36, 50):
        from_the_page(shown.controls.epochs, [first, 85])
    assert shown.view.epochs == (49, 85)
    shown.controls.back.click()
    assert shown.view == start
    shown.controls.back.click()
    assert shown.view.epochs == (1, 100)
    shown.controls.back.click()
    assert shown.view.epochs == (1, 100)


def test_back_tells_two_controls_and_two_drags_apart(shown, monkeypatch):
    from_the_page(shown.controls.epochs, [20, 100])
    from_the_page(shown.controls.values, [0.5, 1.0])
    shown.controls.back.click()
    assert (shown.view.epochs, shown.view.value_range) == ((20, 100), (0.0, 1.0))
    monkeypatch.setattr(explorer, "GESTURE_SECONDS", -1)
    from_the_page(shown.controls.epochs, [30, 100])
    from_the_page(shown.controls.epochs, [40, 100])
    shown.controls.back.click()
    assert shown.view.epochs == (30, 100)


def test_zoom_out_shows_twice_as_much_around_the_same_middle(shown):
    from_the_page(shown.controls.epochs, [40, 60])
    from_the_page(shown.controls.values, [0.4, 0.6])
    shown.controls.zoom_out.click()
    assert shown.view.epochs == (29, 71)
    assert shown.view.value_range == pytest.approx((0.3, 0.7))
    for _ in range(5):
        shown.controls.zoom_out.click()
    assert (shown.view.epochs, shown.view.value_range) == ((1, 100), (0.0, 1.0))
    assert_in_step(shown)


@pytest.mark.parametrize(
    ("name", "metric", "epochs", "value_range", "line"),
    [
        ("loss", "loss", (1, 100), (0.0, 0.35), None),
        ("accuracy", "accuracy", (1, 100), (0.0, 1.0), None),
        ("enlarged", "accuracy", (1, 100), (0.73, 0.98), None),
        ("around the best", "accuracy", (15, 65), (0.85, 0.91), 0.9),
    ],
)
def test_articles_views(shown, name, metric, epochs, value_range, line):
    from_the_page(shown.controls.metric, "loss" if metric == "accuracy" else "accuracy")
    from_the_page(shown.controls.smoothing, 5)
    from_the_page(shown.controls.training, False)
    shown.controls.views[name].click()
    view = shown.view
    assert (view.metric, view.epochs, view.line) == (metric, epochs, line)
    assert view.value_range == pytest.approx(value_range)
    assert (view.smoothing, view.training) == (5, False)
    assert_in_step(shown)


def test_other_metric_begins_with_its_own_range_of_values(shown):
    from_the_page(shown.controls.epochs, [40, 60])
    from_the_page(shown.controls.values, [0.5, 0.9])
    from_the_page(shown.controls.line_on, True)
    from_the_page(shown.controls.metric, "loss")
    assert (shown.view.epochs, shown.view.value_range, shown.view.line) == ((40, 60), (0.0, 0.35), None)
    assert_in_step(shown)


def test_run_that_is_switched_off_leaves_the_others_their_colours(shown, tmp_path):
    both = svg_of(shown, tmp_path)
    assert BLUE in both
    assert ORANGE in both
    picture = shown.controls.image.value
    from_the_page(shown.controls.runs["02_augmentation/seed-0"], False)
    assert shown.labels == ["06_final/seed-0"]
    assert shown.controls.image.value != picture
    one = svg_of(shown, tmp_path)
    assert BLUE not in one
    assert ORANGE in one
    assert "02_augmentation" not in one
    shown.controls.views["around the best"].click()
    assert shown.view.epochs == (35, 85)
    from_the_page(shown.controls.runs["06_final/seed-0"], False)
    shown.controls.views["around the best"].click()
    assert shown.controls.image.value[:8] == PNG
    shown.controls.views["accuracy"].click()
    for box in shown.controls.runs.values():
        from_the_page(box, True)
    assert shown.controls.image.value == picture


def test_refresh_follows_a_run_that_goes_on(shown, runs):
    write_run(runs / "06_final" / "seed-0", 120)
    shown.controls.refresh.click()
    assert shown.view.epochs == (1, 120)
    from_the_page(shown.controls.first, 90)
    write_run(runs / "06_final" / "seed-0", 140)
    shown.controls.refresh.click()
    assert shown.view.epochs == (90, 140)
    assert_in_step(shown)


def test_refresh_keeps_a_zoom(shown, runs):
    from_the_page(shown.controls.epochs, [40, 60])
    from_the_page(shown.controls.values, [0.5, 0.9])
    write_run(runs / "06_final" / "seed-0", 120)
    shown.controls.refresh.click()
    assert (shown.view.epochs, shown.view.value_range, shown.last_epoch) == ((40, 60), (0.5, 0.9), 120)
    assert_in_step(shown)


def test_refresh_finds_new_runs_and_forgets_lost_ones(shown, runs):
    from_the_page(shown.controls.runs["02_augmentation/seed-0"], False)
    write_run(runs / "mine" / "seed-3", 30)
    shown.controls.refresh.click()
    assert list(shown.controls.runs) == ["02_augmentation/seed-0", "06_final/seed-0", "mine/seed-3"]
    assert shown.labels == ["06_final/seed-0", "mine/seed-3"]
    shutil.rmtree(runs / "02_augmentation")
    shown.controls.refresh.click()
    assert list(shown.controls.runs) == shown.labels == ["06_final/seed-0", "mine/seed-3"]
    from_the_page(shown.controls.runs["mine/seed-3"], False)
    assert shown.labels == ["06_final/seed-0"]


def test_zoom_into_epochs_that_are_gone_is_clipped(shown, runs):
    """As after `start_over`."""
    from_the_page(shown.controls.epochs, [40, 60])
    from_the_page(shown.controls.first, 50)
    for name in ("02_augmentation", "06_final"):
        write_run(runs / name / "seed-0", 10)
    for leads_there in (shown.controls.refresh, shown.controls.back):
        leads_there.click()
        assert shown.view.epochs == (9, 10)
        assert_in_step(shown)
    shown.controls.back.click()
    assert shown.view.epochs == (1, 10)


def test_runs_that_are_gone_are_told_and_what_was_read_stays(shown, runs):
    picture = shown.controls.image.value
    shutil.rmtree(runs)
    shown.controls.refresh.click()
    assert f"<b>{runs} does not exist" in shown.controls.caption.value
    assert shown.controls.image.value == picture
    shown.controls.views["loss"].click()
    assert_in_step(shown)


@pytest.mark.parametrize("epochs", [0, 1])
def test_run_that_has_just_begun_is_shown_and_grows(tmp_path, epochs):
    folder = tmp_path / "mine"
    write_run(folder, epochs) if epochs else folder.mkdir()
    if not epochs:
        write_history(folder / "history.csv", empty_history())
    shown = explore(folder)
    assert shown.view.epochs == (1, 2)
    for button in shown.controls.views.values():
        button.click()
        assert shown.controls.image.value[:8] == PNG
        assert_in_step(shown)
    shown.controls.views["accuracy"].click()
    shown.controls.zoom_out.click()
    write_run(folder, 5)
    shown.controls.refresh.click()
    assert shown.view.epochs == (1, 5)
    assert_in_step(shown)


def test_fifty_changes_in_a_row_draw_two_pictures_at_most_and_the_last_is_the_newest(runs):
    async def in_a_kernel():
        shown = explore(runs)
        assert shown.controls.image.value[:8] == PNG, "the first picture waits for no timer"
        for first in range(2, 52):
            from_the_page(shown.controls.epochs, [first, 90])
            assert shown.controls.first.value == first
        while shown.draws == 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return shown, shown.draws - 1

    shown, draws = asyncio.run(in_a_kernel())
    assert 1 <= draws <= 2
    assert_in_step(shown)
    fresh = explore(runs)
    fresh.change(shown.view)
    assert shown.view.epochs == (51, 90)
    assert shown.controls.image.value == fresh.controls.image.value


def test_saved_svg_holds_the_legend_and_a_png_is_one(shown, tmp_path):
    for name in ("<curves>.png", "curves.svg"):
        from_the_page(shown.controls.file, str(tmp_path / name))
        shown.controls.save.click()
        told = name.replace("<", "&lt;").replace(">", "&gt;")
        assert shown.controls.caption.value == f"Saved as {tmp_path / told}"
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


@pytest.mark.parametrize(("name", "told"), [("curves.xyz", "xyz"), ("nowhere/curves.png", "cannot be written")])
def test_picture_that_cannot_be_saved_is_told_below_the_picture(shown, tmp_path, name, told):
    from_the_page(shown.controls.file, str(tmp_path / name))
    shown.controls.save.click()
    assert shown.controls.caption.value.startswith(f"<b>{tmp_path / name}")
    assert told in shown.controls.caption.value
    with pytest.raises(Error, match=told):
        shown.save(tmp_path / name)


def test_markup_in_a_folders_name_is_shown_as_text(tmp_path):
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
