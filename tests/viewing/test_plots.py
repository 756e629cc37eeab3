"""The curves show the history."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot
import pytest

from colabcnn import Error, plot_curves
from colabcnn.store.history import write_history
from colabcnn.viewing import curves
from colabcnn.viewing.curves import Picture, png_of, save_figure
from colabcnn.viewing.figures import article_views
from support.runs import history_of

pytestmark = pytest.mark.versions


@pytest.fixture
def runs(tmp_path):
    folders = []
    for number, name in enumerate(("06_final", "02_augmentation")):
        folder = tmp_path / name / "seed-0"
        folder.mkdir(parents=True)
        write_history(folder / "history.csv", history_of(0.2, 0.5 + number / 10, 0.4))
        folders.append(folder)
    return folders


def test_one_run_has_both_metrics_with_the_best_epoch_marked(runs):
    loss, accuracy = plot_curves(runs[0]).axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    curves = {line.get_label(): line for line in accuracy.lines}
    assert curves["06_final/seed-0: validation"].get_ydata().tolist() == [0.2, 0.5, 0.4]
    assert curves["06_final/seed-0: best"].get_xdata().tolist() == [2]
    assert "best 0.5000, epoch 2" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert accuracy.get_title() == "06_final/seed-0"


def test_several_runs_have_zoom_and_guide_line(runs):
    (axes,) = plot_curves(*runs, metric="accuracy", epochs=(2, 3), value_range=(0.3, 0.7), line=0.55).axes
    assert axes.get_xlim() == (2, 3)
    assert axes.get_ylim() == (0.3, 0.7)
    assert next(line for line in axes.lines if line.get_linestyle() == ":").get_ydata() == [0.55, 0.55]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    named = ["06_final/seed-0: best 0.5000, epoch 2", "02_augmentation/seed-0: best 0.6000, epoch 2"]
    assert labels == ["validation", *named]  # The training curves are below these values.
    (axes,) = plot_curves(*runs, metric="accuracy").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation", *named]


def test_long_name_leaves_room_for_the_curves(runs, tmp_path):
    long = shutil.copytree(runs[0], tmp_path / ("x" * 100))
    axes, short_axes = (plot_curves(run, runs[1], metric="accuracy").axes[0] for run in (long, runs[0]))
    for drawn in (axes, short_axes):
        drawn.figure.draw_without_rendering()
    assert axes.get_position().width > 0.7 * short_axes.get_position().width


def test_title_of_a_long_name_is_shortened_and_one_epoch_is_a_whole_number(runs, tmp_path):
    write_history(runs[0] / "history.csv", history_of(0.5))
    long = shutil.copytree(runs[0], tmp_path / ("x" * 100))
    figure = plot_curves(long)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_title() == f"{'x' * 28} … {'x' * 28}"
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_pyplot_keeps_no_figure(runs):
    plot_curves(*runs)
    assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_file_format_follows_the_ending(runs, tmp_path, ending):
    path = tmp_path / f"curves.{ending}"
    save_figure(plot_curves(runs[0]), path)
    assert path.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_link_and_pipe_are_kept_and_receive_the_picture(runs, tmp_path):
    link, pipe = tmp_path / "link.png", tmp_path / "pipe.png"
    link.symlink_to(tmp_path / "target.png")
    save_figure(plot_curves(runs[0]), link)
    assert link.is_symlink()
    assert (tmp_path / "target.png").read_bytes()[:5] == b"\x89PNG\r"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        received = threads.submit(pipe.read_bytes)
        save_figure(plot_curves(runs[0]), pipe)
        assert received.result(60)[:5] == b"\x89PNG\r"
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "f1"}, "metric is 'f1'"),
        ({"epochs": (5, 2)}, r"epochs is \(5, 2\); expected two numbers, the lower one first"),
        ({"epochs": 5}, "epochs is 5; expected two numbers"),
        ({"epochs": (5,)}, r"epochs is \(5,\); expected two numbers"),
        ({"epochs": (3, 3)}, r"epochs is \(3, 3\); expected two numbers"),
        ({"epochs": ("1", None)}, r"epochs is \('1', None\); expected two numbers"),
        ({"epochs": (None, float("nan"))}, r"epochs is \(None, nan\); expected two numbers"),
        ({"metric": "loss", "value_range": ("a", "b")}, r"value_range is \('a', 'b'\); expected two numbers"),
        ({"value_range": (0.5, 0.9)}, "needs a metric"),
    ],
)
def test_invalid_argument_is_refused(runs, arguments, message):
    with pytest.raises(Error, match=message):
        plot_curves(runs[0], **arguments)


def test_unknown_ending_and_missing_folder_are_refused(runs, tmp_path):
    with pytest.raises(Error, match="xyz"):
        save_figure(plot_curves(runs[0]), tmp_path / "curves.xyz")
    with pytest.raises(Error, match="cannot be written"):
        save_figure(plot_curves(runs[0]), tmp_path / "nowhere" / "curves.png")
    with pytest.raises(Error, match="expected one folder"):
        plot_curves()


@pytest.mark.parametrize("name", ["$USER_$DATE", "$a$", "100$", r"\alpha_{", "学習", "a_b^c"])
def test_name_of_a_folder_is_shown_as_it_is(tmp_path, name):
    folder, other = tmp_path / name, tmp_path / "other" / name
    for path in (folder, other):
        path.mkdir(parents=True)
        write_history(path / "history.csv", history_of(0.2, 0.5, 0.4))
    figure = plot_curves(folder)
    assert png_of(figure)  # A warning would be an error here.
    assert {axes.get_title() for axes in figure.axes} == {name}
    assert not figure.axes[0].title.get_parse_math()
    figure = plot_curves(folder, other)
    assert png_of(figure)
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert f"other/{name}: best 0.5000, epoch 2" in labels


def test_every_text_of_a_picture_is_shown_as_it_is():
    for add in (
        lambda figure: figure.suptitle("$a_$"),
        lambda figure: figure.text(0.5, 0.5, "$a_$"),
        lambda figure: figure.axes[0].text(0.5, 0.5, "$a_$"),
        lambda figure: figure.axes[0].set_title("$a_$"),
        lambda figure: figure.axes[0].legend(handles=[figure.axes[0].plot([1], label="$a_$")[0]]),
        lambda figure: figure.legend(handles=[figure.axes[0].plot([1], label="$a_$")[0]]),
    ):
        figure = Picture()
        figure.subplots()
        add(figure)
        assert png_of(figure)  # As a formula it would be an error.


def test_font_with_japanese_characters_is_used_where_there_is_one(runs, monkeypatch):
    monkeypatch.setattr(curves.font_manager, "get_font_names", lambda: ["DejaVu Sans", "IPAGothic"])
    curves._japanese_fonts.cache_clear()
    try:
        figure = plot_curves(runs[0])
        assert png_of(figure)
    finally:
        curves._japanese_fonts.cache_clear()
    assert figure.axes[0].title.get_fontfamily()[-1] == "IPAGothic"


@pytest.mark.parametrize(("best", "line", "highest"), [(0.8, None, 0.82), (0.89, 0.9, 0.91), (0.95, 0.9, 0.97)])
def test_line_at_nine_tenths_is_in_the_view_only_near_it(best, line, highest):
    view = article_views(history_of(0.5, best, 0.6))["around-the-best"]
    assert view["line"] == line
    assert view["value_range"] == pytest.approx((best - 0.03, highest))
