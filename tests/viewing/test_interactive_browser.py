"""The exported page in a real browser without a network: zoom, hover text, buttons and legend work by mouse."""

import json
import math
import random
import re
import shutil

import pytest

from colabcnn.store.history import empty_history, write_history
from colabcnn.viewing.plotly_page import export_html, interactive_figure
from support.curves_page import GRAPH, Curves
from support.runs import history_of

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytest.importorskip("plotly", reason="Plotly is not installed")
if not shutil.which("chromium"):
    pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)

pytestmark = [pytest.mark.versions, pytest.mark.browser]

EPOCHS = 700
HOSTILE = """<img src=x onerror=alert(1)>&" %{y} $x$ <b>'"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs with different best epochs; the name of one is HTML."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("06_final", "02_augmentation", HOSTILE)):
        (folder / name).mkdir()
        write_history(folder / name / "history.csv", saturating(0.86 - 0.1 * seed, seed))
    return folder


def saturating(top, seed):
    rng = random.Random(seed)
    history = empty_history()
    for epoch in range(1, EPOCHS + 1):
        rise = top * math.sqrt(1 - math.exp(-epoch / 30))
        row = {
            "epoch": epoch,
            "loss": 2 * math.exp(-epoch / 30) + rng.gauss(0.1, 0.01),
            "accuracy": min(1.0, rise + 0.06),
            "val_loss": 2 * math.exp(-epoch / 30) + rng.gauss(0.4, 0.02),
            "val_accuracy": rise + rng.gauss(0, 0.004) + 0.05 * (epoch == 300 + 100 * seed),
            "learning_rate": 0.001,
            "seconds": 20.0,
        }
        for column, value in row.items():
            history[column].append(value)
    return history


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(folder, tmp_path_factory):
    return export_html(folder, path=tmp_path_factory.mktemp("page") / "curves.html")


@pytest.fixture(scope="module")
def wrong():
    """What a page must not do: network requests, console errors or warnings, and dialogs."""
    return []


@pytest.fixture(scope="module")
def open_page(browser, page_file, wrong):
    """Open the page, or another one, in a new window with the network off."""
    contexts = []

    def open_page(path=page_file, **options):
        context = browser.new_context(viewport={"width": 1100, "height": 800}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("request", lambda request: re.match("https?:|wss?:", request.url) and wrong.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        curves = Curves(page)
        curves.wait("graph && graph.calcdata && graph.layout.xaxis.range")
        return curves

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def opened(open_page):
    return open_page()


@pytest.fixture
def curves(opened, folder):
    """The page as after opening; it is drawn again, since opening it takes two seconds."""
    opened.page.set_viewport_size({"width": 1100, "height": 800})
    figure = interactive_figure(folder).update_layout(height=None).to_json()
    draw = f"figure => Plotly.newPlot({GRAPH}, figure.data, figure.layout, {{...{GRAPH}._context}})"
    opened.page.evaluate(draw, json.loads(figure))
    return opened


@pytest.fixture(autouse=True)
def nothing_goes_wrong(wrong):
    yield
    seen = wrong.copy()
    wrong.clear()
    assert seen == []


def test_accuracy_of_the_complete_run_is_shown_first(opened):
    curves = opened
    first, last, low, high = curves.ranges
    assert 0 <= first <= 1
    assert EPOCHS <= last <= 1.03 * EPOCHS
    assert 0 <= low < 0.2
    assert 0.9 < high < 1.1
    assert curves.metric == "accuracy"
    assert curves.highlighted == ["accuracy", "whole run"]


def test_drag_zooms_and_double_click_resets_the_zoom(curves):
    before = curves.ranges
    curves.drag((200, 0.8), (400, 0.5))
    curves.wait("graph.layout.xaxis.range[0] > 100")
    assert curves.ranges == pytest.approx([200, 400, 0.5, 0.8], rel=0.02)
    curves.page.mouse.dblclick(*curves.at(300, 0.65))
    curves.wait("graph.layout.xaxis.range[0] < 100")
    assert curves.ranges == pytest.approx(before)


def test_buttons_switch_between_loss_and_accuracy(curves):
    before = curves.ranges
    curves.press("loss")
    curves.wait("graph.layout.yaxis.range[1] > 1.5")
    assert curves.metric == "loss"
    assert curves.highlighted == ["loss", "whole run"]
    curves.press("accuracy")
    curves.wait("graph.layout.yaxis.range[1] < 1.2")
    assert curves.metric == "accuracy"
    assert curves.ranges == pytest.approx(before)


def test_other_metric_is_shown_over_the_complete_run(curves):
    curves.press("around the best epoch")
    curves.wait("graph.layout.xaxis.range[0] > 100")
    curves.press("loss")
    curves.wait("graph.layout.xaxis.range[0] < 100")
    assert curves.highlighted == ["loss", "whole run"]


def test_guide_line_is_drawn_for_accuracy_only(curves):
    line = curves.page.locator(".shapelayer path:not(.label)")
    assert line.count() == 1
    _, height = curves.at(1, 0.9)
    assert line.first.bounding_box()["y"] == pytest.approx(height, abs=2)
    curves.press("loss")
    line.first.wait_for(state="detached")


@pytest.mark.parametrize("shown", ["accuracy", "loss"])
def test_article_views_open_from_both_metrics(curves, shown):
    curves.press(shown)
    curves.press("accuracy enlarged")
    curves.wait("graph.layout.yaxis.range[0] > 0.5")
    first, last, low, high = curves.ranges
    top = curves.read("Math.max(...graph.data.filter(trace => trace.mode == 'markers').map(trace => trace.y[0]))")
    assert (low, high) == pytest.approx((top - 0.15, min(1, top + 0.1)))
    assert last - first >= EPOCHS - 1
    assert curves.highlighted == ["accuracy", "accuracy enlarged"]
    curves.press("around the best epoch")
    curves.wait("graph.layout.xaxis.range[0] > 100")
    first, last, low, high = curves.ranges
    assert (first, last) == (275, 325)
    assert low < top < high
    assert low < 0.9 < high
    assert curves.metric == "accuracy"
    assert curves.highlighted == ["accuracy", "around the best epoch"]


def test_button_for_the_complete_run_resets_the_zoom_and_keeps_the_metric(curves):
    curves.press("loss")
    curves.wait("graph.layout.yaxis.range[1] > 1.5")
    before = curves.ranges
    curves.drag((200, 0.8), (400, 0.5))
    curves.wait("graph.layout.xaxis.range[0] > 100")
    curves.press("whole run")
    curves.wait("graph.layout.xaxis.range[0] < 100")
    assert curves.ranges == pytest.approx(before)
    assert curves.metric == "loss"


def test_double_click_leaves_an_article_view(curves):
    before = curves.ranges
    curves.press("around the best epoch")
    curves.wait("graph.layout.xaxis.range[0] > 100")
    curves.page.mouse.dblclick(*curves.at(300, 0.9))
    curves.wait("graph.layout.xaxis.range[0] < 100")
    assert curves.ranges == pytest.approx(before)


def test_hover_text_of_a_curve_shows_run_epoch_and_value(curves):
    history = saturating(0.86, 0)
    value = history["val_accuracy"][99]
    assert curves.hover(100, value) == ["06_final", "epoch 100", f"validation {value:.4f}"]
    value = history["accuracy"][99]
    assert curves.hover(100, value) == ["06_final", "epoch 100", f"training {value:.4f}"]
    curves.press("loss")
    curves.wait("graph.layout.yaxis.range[1] > 1.5")
    value = history["val_loss"][19]
    assert curves.hover(20, value)[2] == f"validation {value:.4f}"


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_hover_text_of_a_star_shows_all_values_of_the_best_epoch(curves, metric):
    history = saturating(0.86, 0)
    row = {column: values[299] for column, values in history.items()}
    assert row["val_accuracy"] == max(history["val_accuracy"])
    curves.press(metric)
    curves.wait(f"graph.layout.yaxis.title.text == '{metric}'")
    assert curves.hover(300, row[f"val_{metric}"]) == [
        "06_final",
        "best epoch 300",
        f"validation accuracy {row['val_accuracy']:.4f}",
        f"training accuracy {row['accuracy']:.4f}",
        f"validation loss {row['val_loss']:.4f}",
        f"training loss {row['loss']:.4f}",
    ]


def test_click_in_the_legend_hides_a_run_and_a_second_click_shows_it(curves):
    all_runs = ["02_augmentation", "06_final", HOSTILE]
    assert curves.drawn == sorted(all_runs)
    assert curves.page.locator(".legend .traces").count() == 3
    entry = curves.page.locator(".legend .traces", has_text="06_final").locator(".legendtoggle")
    entry.click()
    curves.wait("graph.calcdata.filter(curve => curve[0].trace.visible === true).length == 6")
    assert "06_final" not in curves.drawn
    curves.press("loss")
    curves.wait("graph.layout.yaxis.title.text == 'loss'")
    assert "06_final" not in curves.drawn
    entry.click()
    curves.wait("graph.calcdata.filter(curve => curve[0].trace.visible === true).length == 9")
    assert curves.drawn == sorted(all_runs)


def test_folder_name_is_shown_as_text(curves):
    page = curves.page
    assert page.locator("img").count() == 0
    names = page.locator(".legend .legendtext").all_text_contents()
    assert any(name.startswith(f"{HOSTILE}: best ") for name in names)
    assert page.locator("table tr th:first-child").all_text_contents() == [
        "run",
        *sorted([HOSTILE, "02_augmentation", "06_final"]),
    ]
    history = saturating(0.66, 2)
    assert curves.hover(50, history["val_accuracy"][49])[0] == HOSTILE


def test_no_epoch_below_zero_is_shown_if_the_first_is_the_best(open_page, tmp_path):
    write_history(tmp_path / "history.csv", history_of(0.5, *[0.4] * 99))
    first, last, *_ = open_page(export_html(tmp_path, path=tmp_path / "page.html")).ranges
    assert 0 <= first <= 1
    assert 100 <= last <= 103


def test_title_of_a_single_run_is_shown_as_text(open_page, folder, tmp_path):
    page = open_page(export_html(folder / HOSTILE, path=tmp_path / "single.html")).page
    assert page.title() == f"Curves of {HOSTILE}"
    assert page.locator("h1").text_content() == f"Curves of {HOSTILE}"
    assert page.locator("img").count() == 0


def test_table_below_the_figure_shows_the_best_epochs(curves):
    row = curves.page.locator("table tr", has_text="06_final").locator("td").all_text_contents()
    history = saturating(0.86, 0)
    assert row == ["300", *(f"{history[name][299]:.4f}" for name in ("val_accuracy", "accuracy", "val_loss", "loss"))]


@pytest.mark.parametrize("width", [600, 800, 1400])
def test_no_element_overlaps_or_is_clipped_and_the_figure_follows_the_window(curves, width):
    curves.page.set_viewport_size({"width": width, "height": 700})
    curves.wait(f"Math.abs(graph._fullLayout.width - {width}) < 50")
    figure = curves.page.locator(".js-plotly-plot").bounding_box()
    assert figure["height"] == curves.read("graph._fullLayout.height") == pytest.approx(0.88 * 700, abs=1)
    places = (
        ".updatemenu-button",
        ".annotation-text",
        ".nsewdrag",
        ".xaxislayer-above",
        ".xtitle",
        ".ytitle",
        ".legend",
    )
    boxes = [place.bounding_box() for name in places for place in curves.page.locator(name).all()]
    assert len(boxes) == 5 + len(places) - 1
    for index, box in enumerate(boxes):
        assert box["x"] >= figure["x"] - 1
        assert box["x"] + box["width"] <= figure["x"] + figure["width"] + 1
        assert box["y"] + box["height"] <= figure["y"] + figure["height"] + 1
        for other in boxes[index + 1 :]:
            separate = (
                box["x"] + box["width"] <= other["x"] + 1
                or other["x"] + other["width"] <= box["x"] + 1
                or box["y"] + box["height"] <= other["y"] + 1
                or other["y"] + other["height"] <= box["y"] + 1
            )
            assert separate, (box, other)


def test_toolbar_offers_a_picture_and_no_upload(curves):
    curves.page.mouse.move(*curves.at(300, 0.5))
    offered = curves.read("[...graph.querySelectorAll('.modebar-btn')].map(button => button.dataset.title)")
    assert any(title.startswith("Download plot") for title in offered)
    assert not any(re.search("cloud|share|chart studio|produced with", title, re.IGNORECASE) for title in offered)
    with curves.page.expect_download() as download:
        curves.page.locator(".modebar-btn[data-title^='Download']").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figure_is_light_on_a_light_and_on_a_dark_page(open_page, scheme, tmp_path):
    curves = open_page(color_scheme=scheme)
    curves.page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    colour = "getComputedStyle({}).{}"
    assert curves.read(colour.format("document.querySelector('.main-svg')", "backgroundColor")) == "rgb(255, 255, 255)"
    text = curves.read(colour.format("document.querySelector('td')", "color"))
    light_text = sum(map(int, re.findall(r"\d+", text)[:3])) > 380
    assert light_text == (scheme == "dark")
