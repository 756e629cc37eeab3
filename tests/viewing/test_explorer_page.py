"""The explorer as a page, in a real browser without a network: by mouse, by touch and by keyboard."""

import math
import re
import statistics

import pytest

from colabcnn import export_html
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.store.history import read_history
from support.explorer_page import ExplorerPage, saturating, write_run
from support.runs import history_of, make_record

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = [pytest.mark.versions, pytest.mark.browser]

EPOCHS = 700
HOSTILE = """<img src=x onerror=alert(1)>&" %{y} $x$ <b>'"""
SEEDS = [f"06_final/seed-{seed}" for seed in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three seeds, another experiment, one on few synthetic images, and a history whose folder's name is HTML."""
    folder = tmp_path_factory.mktemp("runs")
    final = EXPERIMENTS["06_final"]
    for seed in range(3):
        history = saturating(0.84 - 0.01 * seed, seed, best=300 + 100 * seed)
        write_run(folder / "06_final" / f"seed-{seed}", history, make_record(final, seed=seed))
    other = EXPERIMENTS["02_augmentation"]
    write_run(folder / "02_augmentation" / "seed-0", saturating(0.7, 3, best=450), make_record(other))
    few = make_record(final, seed=9, data="synthetic", train_size=256, val_size=100)
    write_run(folder / "short" / "seed-9", saturating(0.3, 4, epochs=3), few)
    write_run(folder / HOSTILE, saturating(0.5, 5))
    return folder


@pytest.fixture(scope="module")
def page_file(folder, tmp_path_factory):
    return export_html(folder, path=tmp_path_factory.mktemp("page") / "curves.html")


@pytest.fixture(scope="module")
def wrong():
    """What a page must not do: network requests, console errors or warnings, and dialogs."""
    return []


@pytest.fixture(scope="module")
def new_page(browser, page_file, wrong):
    """Open the page, or another one, in a new window with the network off; return it with its browser context."""

    def new_page(path=page_file, fragment="", **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        context.set_offline(True)
        page = context.new_page()
        page.on("request", lambda request: re.match("https?:|wss?:", request.url) and wrong.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri() + fragment)
        return ExplorerPage(page).wait_until_drawn(), context

    return new_page


@pytest.fixture
def open_page(new_page):
    """As `new_page`, for one test: an open window takes 300 MB of memory, and processor time."""
    contexts = []

    def open_page(*arguments, **options):
        page, context = new_page(*arguments, **options)
        contexts.append(context)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def opened(new_page):
    page, context = new_page()
    yield page
    context.close()


@pytest.fixture
def shown(opened):
    opened.page.set_viewport_size({"width": 1100, "height": 800})
    opened.reset()
    return opened


@pytest.fixture(autouse=True)
def nothing_goes_wrong(wrong):
    yield
    seen = wrong.copy()
    wrong.clear()
    assert seen == []


def test_accuracy_of_the_complete_run_is_shown_first(open_page):
    shown = open_page()
    first, last, low, high = shown.ranges
    assert (first, last) == (0, 714)
    assert 0 <= low < 0.2
    assert 0.85 < high < 1
    assert shown.view["metric"] == "accuracy"
    assert shown.page.locator("img").is_hidden()


def test_drag_zooms_and_double_click_shows_everything_again(shown):
    before = shown.ranges
    shown.drag((200, 0.8), (400, 0.5))
    shown.wait("explorer.view.xrange")
    assert shown.ranges == pytest.approx([200, 400, 0.5, 0.8], rel=0.02)
    assert shown.view["xrange"] == pytest.approx([200, 400], rel=0.02)
    assert shown.frame.get_by_role("textbox", name="horizontal axis from").input_value().startswith(("19", "20"))
    shown.page.mouse.dblclick(*shown.at(300, 0.65))
    shown.wait("!explorer.view.xrange")
    assert shown.ranges == pytest.approx(before)
    shown.press("Whole run")  # It is shown already: not a step to go back.
    shown.press("Back")
    assert shown.ranges == pytest.approx([200, 400, 0.5, 0.8], rel=0.02)
    shown.press("Back")
    assert shown.ranges == pytest.approx(before)
    assert shown.frame.get_by_role("button", name="Back").is_disabled()


def test_zoom_along_one_axis_keeps_the_other(shown):
    before = shown.ranges
    shown.drag((200, 0.6), (400, 0.6))
    shown.wait("explorer.view.xrange")
    assert shown.view["yrange"] is None
    assert shown.ranges[2:] == pytest.approx(before[2:])


def test_buttons_zoom_and_move(shown):
    shown.press("+")
    first, last, low, high = shown.ranges
    assert (first, last) == pytest.approx((178.5, 535.5))
    shown.press("▶")
    assert shown.ranges == pytest.approx([first + 89.25, last + 89.25, low, high])
    shown.press("◀")
    shown.press("\N{MINUS SIGN}")
    assert shown.ranges[:2] == pytest.approx([0, 714])


def test_metric_axis_and_scale_can_be_chosen(shown, folder):
    history = read_history(folder / "06_final" / "seed-0" / "history.csv")
    shown.choose("seeds", "each run")
    shown.choose("metric", "loss")
    (drawn,) = shown.traces(name="06_final/seed-0", legend=True)
    assert drawn["y"] == pytest.approx(history["val_loss"], rel=1e-6)
    assert shown.ranges[3] > 2
    shown.choose("scale", "logarithmic")
    low, high = shown.ranges[2:]
    assert 10**low < min(history["val_loss"]) < max(history["val_loss"]) < 10**high
    shown.choose("against", "minutes")
    (drawn,) = shown.traces(name="06_final/seed-0", legend=True)
    assert drawn["x"][-1] == pytest.approx(sum(history["seconds"]) / 60, rel=1e-4)
    shown.choose("against", "steps")
    (drawn,) = shown.traces(name="06_final/seed-0", legend=True)
    assert drawn["x"][:2] == [391, 782]
    shown.choose("metric", "learning rate")
    (drawn,) = shown.traces(name="06_final/seed-0", legend=True)
    assert drawn["y"] == pytest.approx(history["learning_rate"], rel=1e-6)


def test_curves_can_be_training_validation_or_both(shown):
    shown.choose("seeds", "each run")
    for option, dashes in (
        ("training", {"dash"}),
        ("validation", {"solid"}),
        ("training and validation", {"dash", "solid"}),
    ):
        shown.choose("curves", option)
        assert {trace["dash"] for trace in shown.traces(mode="lines") if trace["fill"] == "none"} == dashes


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("horizontal axis from", "0,5", "0,5"),
        ("horizontal axis from", "800", "smaller"),
        ("horizontal axis to", "-5", "smaller"),
        ("horizontal axis to", "", "not a number"),
        ("vertical axis from", "5", "smaller"),
        ("vertical axis to", "x" * 300, "not a number"),
        ("guide line", "nine", "not a number"),
    ],
)
def test_typed_number_that_shows_nothing_is_refused_in_words_and_changes_nothing(shown, field, text, words):
    before = shown.view
    shown.type(field, text)
    assert shown.is_refused
    assert words in shown.status
    assert "unchanged" in shown.status
    assert shown.view == before
    assert shown.frame.get_by_role("textbox", name=field, exact=True).input_value() == text
    shown.press("Whole run")
    assert not shown.is_refused


def test_range_without_a_curve_is_refused(shown):
    shown.type("horizontal axis to", "2000")
    shown.type("horizontal axis from", "1500")
    assert "The range contains no curve" in shown.status
    shown.choose("scale", "logarithmic")
    shown.type("vertical axis from", "-1")
    assert "logarithmic" in shown.status


def test_typed_numbers_zoom_and_move_the_line(shown):
    shown.type("horizontal axis from", "250")
    shown.type("horizontal axis to", "320")
    shown.type("vertical axis from", "0.85")
    assert shown.ranges[:3] == pytest.approx([250, 320, 0.85])
    shown.type("guide line", "0.87")
    assert shown.read("explorer.plot._fullLayout.shapes[0].y0") == 0.87
    shown.type("guide line", "-5")
    assert "outside" in shown.status
    shown.type("guide line", "")
    assert shown.read("explorer.plot._fullLayout.shapes.length") == 0


def test_articles_views_are_those_of_the_visible_runs(shown):
    shown.press("Around the best")
    assert shown.ranges[:2] == pytest.approx([275, 325])
    shown.press("Enlarged")
    best = shown.read("explorer.bestOfVisible().value")
    assert shown.ranges[2:] == pytest.approx([best - 0.15, min(1, best + 0.1)], abs=1e-6)
    shown.press("None")
    shown.switch("02_augmentation/seed-0")
    shown.press("Around the best")
    assert shown.ranges[:2] == pytest.approx([425, 475])
    assert shown.ranges[2] < 0.75 < shown.ranges[3] < 0.85


def test_switching_all_runs_off_is_said_and_leaves_no_strange_axes(shown):
    shown.press("None")
    assert "No run is switched on" in shown.status
    assert shown.ranges == pytest.approx([0, 1.5, 0, 1], abs=0.06)
    shown.press("Around the best")
    assert shown.is_refused
    shown.press("All")
    assert "6 of 6 runs" in shown.status


@pytest.mark.newest
def test_partial_and_synthetic_runs_are_marked_and_off(open_page):
    shown = open_page()
    assert shown.view["hide"] == ["short/seed-9"]
    row = shown.frame.locator(".cc-rows li", has_text="short/seed-9")
    assert "synthetic images, 256 training images, 100 validation images" in row.text_content()
    assert "5 of 6 runs" in shown.status


def test_seeds_are_shown_one_by_one_as_a_mean_or_both(shown, folder):
    runs = [read_history(folder / label / "history.csv")["val_accuracy"] for label in SEEDS]
    shown.choose("curves", "validation")
    shown.choose("seeds", "mean and deviation")
    (mean,) = shown.traces(name="06_final, mean of 3")
    assert mean["y"] == pytest.approx([statistics.mean(values) for values in zip(*runs, strict=True)], rel=1e-5)
    (band,) = shown.traces(fill="toself")
    deviations = [statistics.stdev(values) for values in zip(*runs, strict=True)]
    widths = [(high - low) / 2 for high, low in zip(band["y"][:EPOCHS], reversed(band["y"][EPOCHS:]), strict=True)]
    assert widths == pytest.approx(deviations, abs=1e-6)
    assert not shown.traces(name=SEEDS[0])
    text = shown.hover(300, mean["y"][299])
    assert text[0] == "06_final, mean of 3"
    assert "n = 3" in text[1]
    assert shown.status.endswith("runs. Band: one standard deviation.")
    shown.choose("seeds", "both")
    assert shown.traces(name="06_final, mean of 3") and shown.traces(name=SEEDS[0])
    shown.choose("seeds", "each run")
    assert not shown.traces(name="06_final, mean of 3")
    assert len(shown.traces(name=SEEDS[0], mode="lines")) == 1


def test_mean_over_minutes_does_not_go_back_where_a_slow_run_has_ended(open_page, tmp_path):
    for seed, (epochs, seconds) in enumerate(((10, 90.0), (20, 30.0))):
        history = saturating(0.8, seed, epochs=epochs) | {"seconds": [seconds] * epochs}
        write_run(tmp_path / "runs" / f"seed-{seed}", history)
    path = export_html(tmp_path, path=tmp_path / "page.html", view="seeds=mean&x=minutes&curves=validation")
    (mean,) = open_page(path).traces(name="runs, mean of 2")
    assert mean["x"] == pytest.approx([*range(1, 11), *(10 + 0.5 * epoch for epoch in range(1, 11))])


def test_mean_is_of_the_runs_that_have_a_number_at_an_epoch(open_page, tmp_path):
    histories = [history_of(0.2, 0.4, 0.6, 0.8), history_of(0.6, 0.8) | {"epoch": [3, 4]}, history_of(0.2, math.nan)]
    for seed, history in enumerate(histories):
        write_run(tmp_path / "runs" / f"seed-{seed}", history)
    path = export_html(tmp_path, path=tmp_path / "page.html", view="seeds=mean&curves=validation")
    shown = open_page(path)
    (mean,), (band,) = shown.traces(name="runs, mean of 3"), shown.traces(fill="toself")
    assert (mean["x"], mean["y"]) == ([1, 2, 3, 4], pytest.approx([0.2, 0.4, 0.6, 0.8]))
    assert band["y"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.6, 0.4, 0.2])  # Without a gap, which Plotly closes.


@pytest.mark.newest
def test_axis_has_only_the_runs_whose_minutes_or_steps_are_known(open_page, tmp_path):
    final = EXPERIMENTS["06_final"]
    for seed in range(2):
        write_run(tmp_path / "runs" / "final" / f"seed-{seed}", history_of(0.1, 0.2), make_record(final, seed=seed))
    (tmp_path / "runs" / "final" / "seed-1" / "beside-other-work.txt").write_text("a sweep")
    write_run(tmp_path / "runs" / "unknown", history_of(0.1, 0.2) | {"seconds": [math.nan, 60.0]})
    shown = open_page(export_html(tmp_path / "runs", path=tmp_path / "page.html"))
    assert {trace["name"] for trace in shown.traces(legend=True)} == {"final/seed-0", "final/seed-1", "unknown"}
    shown.choose("against", "minutes")
    assert {trace["name"] for trace in shown.traces(legend=True)} == {"final/seed-0", "unknown"}
    assert "1 without minutes: trained beside other work." in shown.status
    assert all(map(math.isfinite, shown.ranges))
    shown.choose("against", "steps")
    assert {trace["name"] for trace in shown.traces(legend=True)} == {"final/seed-0", "final/seed-1"}
    assert "1 without steps: no record." in shown.status


@pytest.mark.newest
def test_accuracies_in_percent_are_within_the_axis(open_page, tmp_path):
    write_run(tmp_path / "percent", history_of(12.0, 40.0, 66.0))
    shown = open_page(export_html(tmp_path, path=tmp_path / "page.html"))
    for view in ("Whole run", "Enlarged", "Around the best"):
        shown.press(view)
        low, high = shown.ranges[2:]
        assert low < 66 < high


def test_smoothing_keeps_the_ends_and_shows_the_curve_behind(shown, folder):
    values = read_history(folder / SEEDS[0] / "history.csv")["val_accuracy"]
    shown.choose("seeds", "each run")
    shown.choose("curves", "validation")
    slider = shown.frame.get_by_role("slider", name="smoothing, epochs")
    slider.focus()
    for _ in range(13):
        slider.press("ArrowRight")
    assert shown.view["smoothing"] == 27
    (smooth,) = shown.traces(name=SEEDS[0], mode="lines")
    assert (smooth["y"][0], smooth["y"][-1]) == pytest.approx((values[0], values[-1]), rel=1e-6)
    assert smooth["y"][4] == pytest.approx(statistics.mean(values[:9]), rel=1e-5)
    assert smooth["y"][100] == pytest.approx(statistics.mean(values[87:114]), rel=1e-5)
    behind = [trace for trace in shown.traces(legend=False) if trace["y"] == pytest.approx(values, rel=1e-6)]
    assert behind


@pytest.mark.newest
def test_list_of_runs_can_be_searched_sorted_opened_and_switched(shown):
    assert [name for name, _ in shown.rows] == ["02_augmentation/seed-0", "06_final, 3 runs", HOSTILE, "short/seed-9"]
    shown.frame.get_by_role("button", name="seeds of 06_final").click()
    assert [name for name, _ in shown.rows][2:5] == SEEDS
    shown.frame.get_by_role("searchbox", name="search runs").fill("seed-1")
    assert [name for name, _ in shown.rows] == ["06_final, 3 runs", "06_final/seed-1"]
    shown.press("None")
    assert shown.view["hide"] == ["06_final/seed-1", "short/seed-9"]
    shown.frame.get_by_role("searchbox", name="search runs").fill("")
    shown.choose("sort runs", "by best")
    names = [name for name, _ in shown.rows]
    assert (names[0], names[-1]) == ("06_final, 3 runs", "short/seed-9")
    shown.choose("sort runs", "by name")
    assert "short" in shown.rows[-1][0]
    shown.frame.get_by_role("searchbox", name="search runs").fill("nothing like this")
    assert shown.frame.locator(".cc-rows").text_content() == "No run has this in its name."


@pytest.mark.newest
def test_seeds_of_one_experiment_are_sorted_and_their_lengths_are_told_if_they_differ(open_page, tmp_path):
    histories = [history_of(0.1), history_of(0.2, 0.4), history_of(0.5, 0.6)]
    for seed, history in enumerate(histories):
        write_run(tmp_path / "runs" / f"seed-{seed}", history)
    shown = open_page(export_html(tmp_path, path=tmp_path / "page.html"))
    head = shown.rows[0]
    assert head == ("runs, 3 runs", "last 0.3667 ± 0.2517, best 0.6000 (after 1 to 2 epochs)")
    shown.choose("sort runs", "by last")
    assert [name for name, _ in shown.rows[1:]] == ["runs/seed-2", "runs/seed-1", "runs/seed-0"]
    shown.choose("seeds", "mean and deviation")
    before = shown.read("explorer.plot._fullData.map(({ line }) => line.color)")
    shown.switch("runs/seed-0")
    assert shown.read("explorer.plot._fullData.map(({ line }) => line.color)") == before


@pytest.mark.newest
def test_labels_of_near_lines_are_apart_and_the_aim_of_the_accuracy_is_not_on_the_loss(open_page):
    shown = open_page()
    shown.read("(explorer.data.references = [{ label: 'article', value: 0.901 }], explorer.draw(), null)")
    upper, lower = (box.bounding_box() for box in shown.frame.locator(".annotation-text").all())
    assert upper["y"] + upper["height"] <= lower["y"]
    shown.choose("metric", "loss")
    assert shown.frame.locator(".shapelayer path").count() == 0
    shown.type("guide line", "0.9")
    assert shown.frame.locator(".shapelayer path").count() == 1
    assert shown.read("explorer.decode(explorer.encode()).line") == 0.9
    shown.type("guide line", "0.4")
    shown.press("Enlarged")
    assert shown.view["line"] == 0.9


def test_last_stands_before_best_and_loss_has_its_own_best(shown, folder):
    history = read_history(folder / "02_augmentation" / "seed-0" / "history.csv")
    figures = dict(shown.rows)["02_augmentation/seed-0"]
    assert figures == f"last {history['val_accuracy'][-1]:.4f}, best {max(history['val_accuracy']):.4f} (epoch 450)"
    shown.choose("metric", "loss")
    lowest = min(history["val_loss"])
    figures = dict(shown.rows)["02_augmentation/seed-0"]
    epoch = history["val_loss"].index(lowest) + 1
    assert figures == f"last {history['val_loss'][-1]:.4f}, best {lowest:.4f} (epoch {epoch})"
    stars = shown.traces(mode="markers")
    assert any(star["x"] == [epoch] * 2 and star["y"] == pytest.approx([lowest] * 2, rel=1e-6) for star in stars)


def test_pointing_at_a_row_or_a_curve_highlights_the_run_in_both(shown, folder):
    shown.choose("seeds", "each run")
    shown.choose("curves", "validation")
    row = shown.frame.locator(".cc-rows li", has_text="02_augmentation/seed-0")
    values = read_history(folder / "02_augmentation" / "seed-0" / "history.csv")["val_accuracy"]
    shown.hover(400, values[399])  # From there at once to the row, which Plotly takes notice of last.
    row.hover()
    drawn = shown.frame.locator(".scatterlayer .trace")
    faint = shown.frame.locator(".scatterlayer .trace.cc-faint")
    # The curve and its star keep their colour.
    assert faint.count() == drawn.count() - 2
    shown.page.mouse.move(5, 5)
    assert faint.count() == 0
    shown.hover(400, values[399])
    assert faint.count() == drawn.count() - 2
    assert "cc-lit" in row.get_attribute("class")


@pytest.mark.newest
def test_no_curve_stays_faint_when_its_run_is_switched_off_by_mouse_or_finger(open_page):
    for options in ({}, {"has_touch": True, "is_mobile": True}):
        shown = open_page(**options)
        box = shown.frame.locator(".cc-rows input[aria-label^='02_augmentation']")
        (box.tap if options else box.click)()
        assert "02_augmentation/seed-0" in shown.view["hide"]
        assert shown.frame.locator(".cc-faint").count() == 0


def test_hover_text_has_run_epoch_minutes_and_value(shown, folder):
    shown.choose("seeds", "each run")
    history = read_history(folder / "02_augmentation" / "seed-0" / "history.csv")
    minutes = sum(history["seconds"][:400]) / 60
    lines = shown.hover(400, history["val_accuracy"][399])
    assert lines == [
        "02_augmentation/seed-0",
        f"epoch 400, {minutes:.1f} min",
        f"validation {history['val_accuracy'][399]:.4f}",
    ]
    star = shown.hover(450, history["val_accuracy"][449])
    assert star[1] == "best epoch 450"
    assert star[2] == f"validation accuracy {history['val_accuracy'][449]:.4f}, loss {history['val_loss'][449]:.4f}"


def test_keys_move_zoom_and_go_back(shown):
    before = shown.ranges
    plot = shown.frame.locator(".cc-plot")
    plot.focus()
    keyboard = shown.page.keyboard
    keyboard.press("+")
    first, last, low, high = shown.ranges
    assert (first, last) == pytest.approx((71.4, 642.6))
    keyboard.press("ArrowRight")
    assert shown.ranges[0] == pytest.approx(first + 0.1 * (last - first))
    keyboard.press("ArrowUp")
    assert shown.ranges[2] == pytest.approx(low + 0.1 * (high - low))
    keyboard.press("Backspace")
    assert shown.ranges[2] == pytest.approx(low)
    keyboard.press("Home")
    assert shown.ranges == pytest.approx(before)


@pytest.mark.newest
def test_every_control_is_reached_by_tab_and_has_a_name(shown):
    shown.page.locator("body").click(position={"x": 2, "y": 2})
    session = shown.page.context.new_cdp_session(shown.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "combobox", "textbox", "searchbox", "slider", "checkbox", "MenuListPopup")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if node.get("role", {}).get("value") in controls and not node.get("ignored")
    ]
    assert len(named) > 20
    assert [role for role, name in named if not name and role != "MenuListPopup"] == []
    reached = set()
    for _ in range(60):
        shown.page.keyboard.press("Tab")
        reached.add(shown.read("[document.activeElement.tagName, document.activeElement.ariaLabel].join()"))
    for name in ("metric", "against", "scale", "seeds", "curves", "smoothing, epochs", "guide line", "search runs"):
        assert any(element.endswith(name) for element in reached), name
    assert any(element.startswith("DIV,Curves of accuracy") for element in reached)


def test_text_of_the_picture_says_run_last_and_best(shown, folder):
    history = read_history(folder / "02_augmentation" / "seed-0" / "history.csv")
    text = shown.frame.get_by_role("img", name=re.compile("Curves of accuracy")).get_attribute("aria-label")
    values = history["val_accuracy"]
    assert f"02_augmentation/seed-0: last {values[-1]:.4f}, best {max(values):.4f} (epoch 450)" in text


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_page_fits_the_width_and_shows_the_curves_first(open_page, width):
    shown = open_page(viewport={"width": width, "height": 800})
    assert shown.read("document.documentElement.scrollWidth") <= width
    plot, runs = (shown.frame.locator(name).bounding_box() for name in (".cc-plot", ".cc-rows"))
    assert plot["width"] >= min(width - 30, 0.6 * width)
    assert plot["y"] < 260
    assert (runs["x"] > plot["x"] + plot["width"] - 1) == (width >= 1280)
    for control in shown.frame.locator(".colabcnn button, .colabcnn select").all():
        box = control.bounding_box()
        assert box["x"] >= 0, control
        assert box["x"] + box["width"] <= width, control
    shown.page.set_viewport_size({"width": 700, "height": 800})
    shown.wait("Math.abs(explorer.plot._fullLayout.width - explorer.plot.clientWidth) < 2")


def test_swipe_on_the_curves_scrolls_the_page_and_drag_to_zoom_can_be_switched_on(open_page):
    shown = open_page(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    before = shown.view
    session = shown.page.context.new_cdp_session(shown.page)

    def swipe(dx, dy):
        box = shown.frame.locator(".cc-plot .nsewdrag").bounding_box()
        x, y = box["x"] + box["width"] * 0.6, box["y"] + min(box["height"] * 0.6, 300)
        touch = {"x": x, "y": y}
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [touch]})
        for step in range(1, 9):
            moved = {"x": x + dx * step / 8, "y": y + dy * step / 8}
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [moved]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        shown.page.wait_for_timeout(300)

    swipe(0, -180)
    shown.wait("window.scrollY > 100")
    assert shown.view == before
    shown.read("window.scrollTo(0, 0)")
    shown.frame.get_by_label("drag to zoom").check()
    swipe(-120, -90)
    shown.wait("explorer.view.xrange")


def luminance(colour):
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_curves_stand_out_from_a_light_and_a_dark_page(open_page, scheme):
    shown = open_page(color_scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    for place, attribute in ((".cc-status", "color"), ("td", "color"), (".xtick text", "fill"), (".cc-name", "color")):
        assert (luminance(shown.read(style.format(place, attribute))) > 128) == (scheme == "dark"), place
    for colour in shown.read("[...document.querySelectorAll('.js-line')].map((line) => getComputedStyle(line).stroke)"):
        assert abs(luminance(colour) - (17 if scheme == "dark" else 255)) > 70, colour


@pytest.mark.newest
def test_colours_follow_the_theme_of_an_open_page(open_page):
    shown = open_page(color_scheme="light")
    shown.page.emulate_media(color_scheme="dark")
    shown.wait("explorer.dark")
    shown.read("(document.body.style.background = '#fff', null)")
    shown.wait("!explorer.dark")


@pytest.mark.newest
@pytest.mark.parametrize("colour", ["color(srgb 0.95 0.95 0.9)", "oklch(0.95 0.02 100)", "#f2f2e6"])
def test_light_cell_in_a_dark_page_is_recognised_in_any_colour_space(open_page, colour):
    shown = open_page(color_scheme="dark")
    shown.read(f"(explorer.root.parentElement.style.background = '{colour}', explorer.draw(), null)")
    assert not shown.read("explorer.dark")


@pytest.mark.newest
def test_thirteen_experiments_are_told_apart_by_colour_and_marker(open_page, tmp_path):
    for number in range(13):
        write_run(tmp_path / f"run-{number:02}", history_of(0.1, 0.2, 0.3))
    shown = open_page(export_html(tmp_path, path=tmp_path / "page.html"))
    styles = shown.read("explorer.runs.map((run) => JSON.stringify(explorer.style(run)))")
    assert len(set(styles)) == 13
    swatches = [
        swatch.get_attribute("style") + swatch.text_content() for swatch in shown.frame.locator(".cc-line").all()
    ]
    assert len(set(swatches)) == 13


@pytest.mark.newest
def test_address_keeps_the_view_and_a_wrong_one_is_reported(open_page, shown):
    shown.choose("metric", "loss")
    shown.choose("scale", "logarithmic")
    shown.type("horizontal axis from", "100")
    shown.switch(HOSTILE)
    shown.press("Copy link")
    address = shown.frame.get_by_role("textbox", name="this view, to copy").input_value()
    again = open_page(fragment="#" + address.split("#", 1)[1])
    assert again.view == shown.view
    assert again.ranges == pytest.approx(shown.ranges)
    odd = open_page(fragment="#metric=speed&xrange=9:3&line=x&smoothing=-1&hide=nobody&other=1&seeds=label")
    assert {**odd.view, "hide": []} == {**open_page().view, "hide": []}
    assert odd.is_refused
    assert odd.status.endswith("metric=speed, xrange=9:3, line=x, smoothing=-1, other=1, seeds=label")


@pytest.mark.newest
@pytest.mark.parametrize("view", ["metric=toString", "constructor=name", "xrange=1:Infinity", "scale=log&yrange=-1:1"])
def test_view_that_cannot_be_drawn_is_left_out(open_page, view):
    shown = open_page(fragment=f"#{view}")
    assert shown.is_refused
    assert shown.status.endswith(view.split("&")[-1])
    assert all(map(math.isfinite, shown.ranges))


@pytest.mark.newest
def test_link_that_is_pasted_into_the_open_page_is_shown(open_page, page_file):
    shown = open_page()
    shown.page.goto(page_file.as_uri() + "#metric=loss&xrange=270012:270040")
    shown.wait("explorer.view.metric === 'loss'")
    assert shown.view["xrange"] == [270012, 270040]
    assert "xrange=270012%3A270040" in shown.read("explorer.encode()")


@pytest.mark.newest
def test_other_view_of_a_page_with_a_view_is_there_after_a_reload(open_page, folder, tmp_path):
    shown = open_page(export_html(folder, path=tmp_path / "loss.html", view="metric=loss"))
    shown.choose("metric", "accuracy")
    shown.page.reload()
    assert shown.wait_until_drawn().view["metric"] == "accuracy"


def test_zooming_ends_before_the_browser_hangs(shown):
    shown.choose("scale", "logarithmic")
    for factor in (2, 0.5):
        shown.press("Whole run")
        shown.read(f"([...Array(40)].forEach(() => explorer.zoom({factor})), null)")
        assert shown.is_refused
        assert all(map(math.isfinite, shown.ranges))
        assert shown.ranges[0] < shown.ranges[1]


def test_guide_line_of_0_is_not_drawn_on_a_logarithmic_scale(shown):
    shown.type("guide line", "0")
    shown.choose("scale", "logarithmic")
    assert shown.read("explorer.plot.layout.shapes.length") == 0


def refresh(shown, change="null"):
    shown.read(f"({change}, colabcnnExplorer.update('page', colabcnnStore.page.data), null)")
    shown.page.wait_for_timeout(100)


def test_refresh_takes_nothing_from_a_person_who_types_or_copies(shown):
    shown.press("Copy link")
    field = shown.frame.get_by_role("textbox", name="horizontal axis from")
    field.press_sequentially("7")
    typed = field.input_value()
    refresh(shown)
    assert field.input_value() == typed
    assert shown.read("!explorer.copied.hidden")
    shown.type("guide line", "x")
    refresh(shown)
    assert shown.is_refused
    shown.press("Whole run")
    assert not shown.is_refused
    refresh(shown)
    assert shown.read("explorer.status.getAttribute('aria-live')") == "off"


def test_refresh_leaves_the_slider_to_the_finger_that_holds_it(shown):
    box = shown.frame.get_by_role("slider", name="smoothing, epochs").bounding_box()
    middle = box["y"] + box["height"] / 2
    shown.page.mouse.move(box["x"] + 4, middle)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + box["width"] / 2, middle)
    refresh(shown)
    shown.page.mouse.up()
    assert shown.view["smoothing"] > 10


@pytest.mark.newest
def test_view_that_is_copied_after_a_refresh_is_the_one_that_is_seen(open_page, folder, tmp_path):
    shown = open_page(export_html(folder / "06_final", path=tmp_path / "three.html"))
    more = "Array.from({ length: 10 }, (_, seed) => ({ ...explorer.data.runs[0], label: `seed ${seed}` }))"
    shown.read(f"(colabcnnExplorer.update('page', {{ ...explorer.data, runs: {more} }}), null)")
    shown.page.wait_for_timeout(100)
    assert shown.view["seeds"] == "each"
    assert "seeds=each" in shown.read("explorer.encode()")  # Of ten runs a mean is shown first.


@pytest.mark.newest
def test_partial_run_that_a_refresh_brings_stays_off_after_a_step_back(open_page):
    shown = open_page()
    shown.choose("metric", "loss")
    runs = "[...explorer.data.runs, { ...explorer.data.runs[0], label: 'new', off: true }]"
    shown.read(f"(colabcnnExplorer.update('page', {{ ...explorer.data, runs: {runs} }}), null)")
    shown.page.wait_for_timeout(100)
    assert "new" in shown.view["hide"]
    shown.press("Back")
    assert shown.view["metric"] == "accuracy"
    assert "new" in shown.view["hide"]


@pytest.mark.newest
def test_run_that_was_switched_off_stays_off_when_its_label_gets_longer(open_page):
    shown = open_page()
    with_ids = "[...explorer.data.runs].map((run, id) => ({ ...run, id, off: false }))"
    shown.read(f"(colabcnnExplorer.update('page', {{ ...explorer.data, runs: {with_ids} }}), null)")
    shown.page.wait_for_timeout(100)
    shown.switch("02_augmentation/seed-0")
    hidden = shown.view["hide"]
    assert "02_augmentation/seed-0" in hidden
    longer = "explorer.data.runs.map((run) => ({ ...run, label: `a/${run.label}` }))"
    shown.read(f"(colabcnnExplorer.update('page', {{ ...explorer.data, runs: {longer} }}), null)")
    shown.page.wait_for_timeout(100)
    assert sorted(shown.view["hide"]) == sorted(f"a/{label}" for label in hidden)


def test_ends_of_a_narrow_range_are_shown_with_the_digits_that_tell_them_apart(shown):
    shown.type("vertical axis from", "0.87123")
    shown.type("vertical axis to", "0.87126")
    field = shown.frame.get_by_role("textbox", name="vertical axis to")
    assert field.input_value() == "0.87126"
    shown.type("horizontal axis from", "250")
    assert shown.frame.get_by_role("textbox", name="horizontal axis from").input_value() == "250"


def test_refresh_keeps_the_keyboard_at_its_run(shown):
    box = shown.frame.locator(".cc-rows input[aria-label^='02_augmentation/seed-0:']")
    box.focus()
    refresh(shown, "explorer.view = { ...explorer.view, metric: 'loss' }")  # Other figures, as after an epoch.
    assert box.evaluate("box => box === document.activeElement")


def test_right_button_does_not_hold_a_refresh_up(shown):
    shown.page.mouse.move(*shown.at(300, 0.5))
    shown.page.mouse.down(button="right")
    assert not shown.read("explorer.dragging")
    shown.page.mouse.up(button="right")


def test_figure_that_is_shown_twice_is_there_twice(open_page):
    shown = open_page()
    shown.read("(document.body.append(document.querySelector('.colabcnn').cloneNode()), null)")
    shown.read("(colabcnnExplorer.start('page'), null)")
    shown.frame.locator(".cc-plot .scatterlayer").nth(1).wait_for(state="attached")


@pytest.mark.newest
def test_run_without_an_epoch_is_not_called_switched_off_and_one_without_a_number_is_last(open_page, tmp_path):
    nan = float("nan")
    write_run(tmp_path / "none", history_of())
    write_run(tmp_path / "runs" / "diverged", history_of(0.1) | {"val_loss": [nan]})
    write_run(tmp_path / "runs" / "mean" / "seed-0", history_of(0.9))
    write_run(tmp_path / "runs" / "mean" / "seed-1", history_of(0.1))
    write_run(tmp_path / "runs" / "one", history_of(0.6))
    page = export_html(tmp_path / "none", path=tmp_path / "none.html")
    shown = ExplorerPage(open_page().page)
    shown.page.goto(page.as_uri())
    shown.wait("Boolean(explorer?.plot.data)")
    assert shown.status.startswith("No epoch is done yet.")
    assert "1 of 1 runs" in shown.status
    shown = open_page(export_html(tmp_path / "runs", path=tmp_path / "runs.html"))
    shown.choose("sort runs", "by last")  # As its row says, a mean.
    assert [name for name, _ in shown.rows] == ["one", "mean, 2 runs", "diverged"]
    shown.choose("metric", "loss")
    assert shown.rows[-1] == ("diverged", "last none, best none")


@pytest.mark.parametrize(("kind", "magic"), [("PNG", b"\x89PNG"), ("SVG", b"<svg")])
def test_picture_is_saved_with_the_names_of_the_runs(shown, kind, magic):
    shown.page.mouse.move(*shown.at(300, 0.5))
    with shown.page.expect_download() as download:
        shown.frame.get_by_role("button", name=kind).click()
    content = download.value.path().read_bytes()
    assert content.startswith(magic)
    if kind == "SVG":
        assert "02_augmentation/seed-0" in content.decode()


@pytest.mark.newest
def test_saved_picture_has_all_digits_of_its_axis(shown, open_page):
    shown.choose("metric", "learning rate")
    shown.type("vertical axis from", "0.000123")
    shown.type("vertical axis to", "0.000124")
    with shown.page.expect_download() as download:
        shown.press("SVG")
    view = open_page(fragment="#metric=loss").page
    view.set_content(download.value.path().read_text())
    lefts = view.evaluate("[...document.querySelectorAll('.ytick text')].map((text) => text.getBoundingClientRect().x)")
    assert lefts and min(lefts) >= view.evaluate("document.querySelector('svg').getBoundingClientRect().x")


def test_toolbar_offers_no_upload(shown):
    # Plotly's own toolbar may have a button that sends the curves to a service.
    assert shown.frame.locator(".modebar-btn").count() == 0


def test_folder_name_is_shown_as_text(shown, folder):
    page = shown.page
    assert page.locator("img:visible").count() == 0
    assert HOSTILE in [name for name, _ in shown.rows]
    assert HOSTILE in page.locator("table tr td:first-child").all_text_contents()
    shown.choose("seeds", "each run")
    history = read_history(folder / HOSTILE / "history.csv")
    assert shown.hover(650, history["val_accuracy"][649])[0] == HOSTILE


def test_title_of_a_single_run_is_shown_as_text(open_page, folder, tmp_path):
    page = open_page(export_html(folder / HOSTILE, path=tmp_path / "single.html")).page
    assert page.title() == f"Curves of {HOSTILE}"
    assert page.locator("h1").text_content() == f"Curves of {HOSTILE}"


@pytest.mark.newest
def test_runs_with_one_epoch_and_with_none_can_be_shown(open_page, tmp_path):
    write_run(tmp_path / "one", history_of(0.5))
    write_run(tmp_path / "none", history_of())
    shown = open_page(export_html(tmp_path, path=tmp_path / "page.html"))
    assert dict(shown.rows) == {"none": "no epoch yet", "one": "last 0.5000, best 0.5000 (epoch 1)"}
    assert shown.ranges[:2] == [0.5, 1.5]
    assert all(map(math.isfinite, shown.ranges))
    for name in ("Enlarged", "Around the best", "+", "Whole run"):
        shown.press(name)


def test_page_without_scripts_shows_a_picture_and_the_table(browser, page_file):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(page_file.as_uri())
    assert page.locator("img").bounding_box()["width"] > 500
    assert page.locator("table tr").count() == 7
