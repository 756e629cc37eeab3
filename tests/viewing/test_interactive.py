"""The interactive figure shows the histories, and its page is one self-contained file."""

import json
import os
import re
import subprocess
import sys

import pytest

from colabcnn.errors import Error
from colabcnn.store.history import empty_history, write_history
from colabcnn.viewing.curves import COLOURS
from colabcnn.viewing.plotly_page import export_html, interactive_figure
from support.runs import history_of

pytest.importorskip("plotly", reason="Plotly is not installed")
pytestmark = pytest.mark.versions


@pytest.fixture
def make_run(tmp_path):
    def make_run(name, history):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_history(folder / "history.csv", history)
        return folder

    return make_run


@pytest.fixture
def runs(make_run):
    """Two runs of three epochs, best in epoch 2 with 0.5 and in epoch 3 with 0.8."""
    return [
        make_run("06_final/seed-0", history_of(0.2, 0.5, 0.4)),
        make_run("02_augmentation/seed-0", history_of(0.2, 0.7, 0.8)),
    ]


def curves_of(figure, **wanted):
    return [trace for trace in figure.data if all(getattr(trace, name) == value for name, value in wanted.items())]


def button(figure, label):
    buttons = {button.label: button for menu in figure.layout.updatemenus for button in menu.buttons}
    return buttons[label].args


def test_figure_is_a_plain_plotly_figure(runs):
    figure = interactive_figure(*runs)
    assert type(figure).__module__.startswith("plotly.graph_objs")
    assert type(figure).__name__ == "Figure"


def test_training_accuracy_is_dashed_and_validation_accuracy_is_solid(runs):
    figure = interactive_figure(*runs)
    training, validation, best = curves_of(figure, legendgroup="06_final/seed-0")
    assert (training.line.dash, validation.line.dash) == ("dash", None)
    assert training.x == validation.x == (1, 2, 3)
    assert training.y == pytest.approx((1 / 3, 1 / 6, 1 / 9), abs=1e-9)
    assert validation.y == (0.2, 0.5, 0.4)
    assert (set(best.x), set(best.y), best.marker.symbol) == ({2}, {0.5}, "star")


def test_each_run_has_one_colour_and_one_row_in_the_legend(runs):
    figure = interactive_figure(*runs)
    for label, colour in zip(("06_final/seed-0", "02_augmentation/seed-0"), COLOURS, strict=False):
        training, validation, best = curves_of(figure, legendgroup=label)
        assert {training.line.color, validation.line.color, best.marker.color} == {colour}
        assert [trace.showlegend for trace in (training, validation, best)] == [False, True, False]
    names = [trace.name for trace in curves_of(figure, showlegend=True)]
    assert names == ["06_final/seed-0: best 0.5000, epoch 2", "02_augmentation/seed-0: best 0.8000, epoch 3"]


def test_more_runs_than_colours_get_thicker_lines(make_run, tmp_path):
    for number in range(len(COLOURS) + 2):
        make_run(f"run-{number}", history_of(0.1, 0.2))
    lines = [trace.line for trace in curves_of(interactive_figure(tmp_path / "runs"), showlegend=True)]
    assert lines[len(COLOURS)].color == lines[0].color
    assert len({(line.color, line.width) for line in lines}) == len(lines)


def test_folder_of_runs_shows_all_its_runs(runs, tmp_path):
    figure = interactive_figure(tmp_path / "runs")
    groups = [trace.legendgroup for trace in curves_of(figure, showlegend=True)]
    assert groups == ["02_augmentation/seed-0", "06_final/seed-0"]


def test_loss_button_shows_the_losses_of_all_curves(runs):
    history = history_of(0.2, 0.5, 0.4)
    history["val_loss"] = [3.0, 2.0, 1.0]
    write_history(runs[0] / "history.csv", history)
    figure = interactive_figure(*runs)
    values, layout = button(figure, "loss")
    shown = dict(zip([id(trace) for trace in figure.data], values["y"], strict=True))
    training, validation, best = (shown[id(trace)] for trace in curves_of(figure, legendgroup="06_final/seed-0"))
    assert training == pytest.approx(history["loss"], abs=1e-9)
    assert validation == [3.0, 2.0, 1.0]
    assert set(best) == {2.0}
    assert layout["yaxis.title.text"] == "loss"
    assert layout["shapes[0].visible"] is False


@pytest.mark.parametrize("label", ["accuracy", "accuracy enlarged", "around the best epoch"])
def test_accuracy_buttons_show_the_first_values_again(runs, label):
    figure = interactive_figure(*runs)
    values, layout = button(figure, label)
    assert [tuple(curve) for curve in values["y"]] == [trace.y for trace in figure.data]
    assert layout["yaxis.title.text"] == figure.layout.yaxis.title.text == "accuracy"
    assert layout["shapes[0].visible"] is True


def test_article_views_are_around_the_best_epoch_of_all_runs(make_run):
    accuracies = [0.5] * 100
    accuracies[59] = 0.885
    figure = interactive_figure(make_run("a", history_of(*accuracies)), make_run("b", history_of(0.1, 0.2)))
    _, enlarged = button(figure, "accuracy enlarged")
    assert enlarged["yaxis.range"] == pytest.approx((0.735, 0.985))
    assert enlarged["xaxis.autorange"] is True
    _, around = button(figure, "around the best epoch")
    assert tuple(around["xaxis.range"]) == (35, 85)
    assert around["yaxis.range"][0] < 0.885 < 0.9 < around["yaxis.range"][1]


def test_figure_has_its_own_background(runs):
    layout = interactive_figure(*runs).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "white"


def test_guide_line_is_at_nine_tenths(runs):
    (line,) = interactive_figure(*runs).layout.shapes
    assert (line.y0, line.y1) == (0.9, 0.9)


def test_hover_text_has_four_decimals_and_the_values_of_the_best_epoch(runs):
    figure = interactive_figure(runs[0])
    training, validation, best = (trace.hovertemplate for trace in figure.data)
    assert "epoch %{x}<br>training %{y:.4f}" in training
    assert "epoch %{x}<br>validation %{y:.4f}" in validation
    assert "validation accuracy 0.5000<br>training accuracy 0.1667<br>validation loss 0.1667" in best


def test_single_epoch_is_a_visible_point(make_run):
    figure = interactive_figure(make_run("one", history_of(0.3)))
    assert [trace.mode for trace in figure.data] == ["lines+markers", "lines+markers", "markers"]
    assert "best epoch" in figure.data[2].hovertemplate


@pytest.mark.parametrize("others", [[], [history_of(0.3, 0.4)]])
def test_run_without_epochs_draws_nothing(make_run, tmp_path, others):
    make_run("begun", empty_history())
    for history in others:
        make_run("other", history)
    figure = interactive_figure(tmp_path / "runs")
    assert all(len(trace.x) == len(trace.y) == 0 for trace in curves_of(figure, legendgroup="begun"))
    page = export_html(tmp_path / "runs", path=tmp_path / "curves.html").read_text()
    assert "<th>begun</th><td>no epoch yet</td>" in page


def test_values_keep_float32_precision(make_run):
    value = 0.8999999761581421
    figure = interactive_figure(make_run("run", history_of(value, 0.1)))
    assert figure.data[1].y[0] == pytest.approx(value, abs=1e-9)


def test_nine_runs_of_700_epochs_make_a_small_figure(make_run, tmp_path):
    for number in range(9):
        make_run(f"run-{number}", history_of(*(epoch / 701 for epoch in range(700))))
    figure = interactive_figure(tmp_path / "runs")
    assert len(figure.data) == 27
    assert len(figure.to_json()) < 1.5e6


def test_page_is_one_file_with_title_language_and_encoding(runs, tmp_path):
    path = export_html(*runs, path=str(tmp_path / "page.html"))
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "page.html"
    assert sorted(os.listdir(tmp_path)) == ["page.html", "runs"]
    assert page.startswith("<!doctype html>")
    assert '<html lang="en">' in page
    assert '<meta charset="utf-8">' in page
    assert "<title>Curves of 2 runs</title>" in page
    assert not re.search(r"<(script|img|iframe)[^>]*\ssrc=|<link\b", page)
    assert not re.search("mathjax[^\"']*[.]js", page, re.IGNORECASE)


def test_page_of_one_run_has_its_name_as_title(runs, tmp_path):
    page = export_html(runs[0], path=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Curves of 06_final/seed-0</title>" in page


def test_same_runs_make_the_same_page(runs, tmp_path):
    pages = [export_html(*runs, path=tmp_path / name).read_bytes() for name in ("first.html", "second.html")]
    assert pages[0] == pages[1]


def test_default_page_is_curves_html(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_html(*runs).resolve() == tmp_path / "curves.html"


def test_table_shows_the_best_epoch_of_each_run(runs, tmp_path):
    page = export_html(*runs, path=tmp_path / "page.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr><th>(.*?)</th>(.*)</tr>", page)
    cells = {name: re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for name, row in rows}
    assert cells["run"] == [
        "best epoch",
        "validation accuracy",
        "training accuracy",
        "validation loss",
        "training loss",
    ]
    assert cells["06_final/seed-0"] == ["2", "0.5000", "0.1667", "0.1667", "0.1667"]
    assert cells["02_augmentation/seed-0"] == ["3", "0.8000", "0.1111", "0.1111", "0.1111"]


@pytest.mark.parametrize("name", ["</script><script>alert(1)<", "<!--<script>", "a&b\"c'", "{title}", "\udcff"])
def test_any_folder_name_gives_a_valid_page(make_run, tmp_path, name):
    folder = make_run(os.path.join(name, "seed-0"), history_of(0.2, 0.3))
    plain = make_run("plain/seed-0", history_of(0.2, 0.3))
    page = export_html(folder, path=tmp_path / "page.html").read_text(encoding="utf-8")
    expected = export_html(plain, path=tmp_path / "plain.html").read_text(encoding="utf-8")
    for tag in ("<script", "</script", "<!--", "<th", "<title"):
        assert page.count(tag) == expected.count(tag), tag


def test_long_name_is_shortened_in_the_legend_only(make_run, tmp_path):
    folder = make_run("a" * 100 + "b" * 100, history_of(0.2, 0.3))
    figure = interactive_figure(folder)
    assert len(figure.data[1].name) < 100
    assert figure.data[1].name.startswith("aaa")
    assert "bbb: best 0.3000, epoch 2" in figure.data[1].name
    assert folder.name in figure.data[1].hovertemplate


def test_page_that_cannot_be_written_is_one_error(runs, tmp_path):
    with pytest.raises(Error, match=r"page.html cannot be written \(No such file"):
        export_html(runs[0], path=tmp_path / "nowhere" / "page.html")


def test_error_for_missing_plotly_names_the_fix(runs, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    for function in (interactive_figure, export_html):
        with pytest.raises(Error, match="pip install plotly"):
            function(runs[0])


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(Error, match="holds no run"):
        interactive_figure(tmp_path)


def test_import_pulls_in_neither_plotly_nor_keras():
    code = "import sys, json, colabcnn.viewing.plotly_page; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert not {"plotly", "keras", "tensorflow", "jax", "ipywidgets"} & set(loaded)
