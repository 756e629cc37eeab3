"""Progress is one line that updates in place; 700 epochs do not print 700 lines."""

import os
import pty
import subprocess
import sys

import pytest

from colabcnn.training import progress
from colabcnn.training.progress import ProgressLine, roughly
from support.terminal import screen

pytestmark = pytest.mark.versions

SEVEN_HUNDRED = (
    "from colabcnn.training import progress as progress; progress.REFRESH_SECONDS = 0; line = progress.ProgressLine()\n"
    "for epoch in range(1, 701): line.update(lambda: f'epoch {epoch}/700', milestone=True, last=epoch == 700)"
)


def in_terminal(code):
    """Return what a program writes to a terminal."""
    reader, writer = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer, close_fds=True)
    os.close(writer)
    output = b""
    try:
        while part := os.read(reader, 1 << 16):
            output += part
    except OSError:  # On Linux, reading a closed terminal fails.
        pass
    assert process.wait() == 0
    return output.decode()


def test_terminal_shows_one_line():
    output = in_terminal(SEVEN_HUNDRED)
    assert output.count("\n") == 1
    assert output.rstrip().endswith("epoch 700/700")


def test_terminal_shows_the_newest_two_lines_and_the_messages_above_them():
    two = SEVEN_HUNDRED.replace("f'epoch {epoch}/700'", "f'epoch {epoch}/700\\nloss ' + '9' * (900 - epoch)")
    between = (
        "for epoch in (1, 2, 3): line.update(lambda: f'epoch {epoch}\\nloss {epoch}'); line.info(f'message {epoch}')"
    )
    first, rest = two.split("\n")
    code = f"{first}\n{between}\n{rest}\nline.update(lambda: 'a\\nb'); line.end(); line.info('end')"
    shown = screen(in_terminal(code).replace("\r\n", "\n"))
    assert shown == ["message 1", "message 2", "message 3", "epoch 700/700", "loss " + "9" * 74, "a", "b", "end", ""]


def test_log_file_gets_the_first_and_the_last_epoch_and_no_control_codes():
    output = subprocess.run([sys.executable, "-c", SEVEN_HUNDRED], capture_output=True, text=True).stdout
    assert output.splitlines() == ["epoch 1/700", "epoch 700/700"]


def test_notebook_updates_one_line_and_the_outputs_below_it(shell, monkeypatch):
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, *_, **options: published.append((data, options)))
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0)
    line = ProgressLine()
    for epoch in range(1, 701):
        line.update(lambda epoch=epoch: f"epoch {epoch}/700", milestone=True)
    line.show_html("figure", "<p>")
    assert published[-2][0] == {"text/plain": "epoch 700/700"}
    assert published[-1][0] == {"text/html": "<p>", "text/plain": ""}
    assert [options.get("update", False) for _, options in published] == [False] + [True] * 699 + [False]
    assert len({options["transient"]["display_id"] for _, options in published}) == 2


def test_quiet_prints_nothing(capsys):
    line = ProgressLine(quiet=True)
    line.info("hello")
    line.update(lambda: "epoch", last=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (4, "0 s"),
        (44, "40 s"),
        (58, "1 min"),
        (200, "3 min"),
        (3590, "1 h"),
        (8400, "2 h 20 min"),
        (37800, "10 h"),
        (126000, "35 h"),
    ],
)
def test_time_left_is_rounded(seconds, text):
    assert roughly(seconds) == text


RUNS = (
    "from colabcnn.training import progress as progress; progress.REFRESH_SECONDS = 0; line = progress.ProgressLine()\n"
    "runs = {f'run {number}': ('waiting', '') for number in range(COUNT)}; line.update_lines(runs)\n"
    "runs['run 0'] = ('training', 'epoch 1'); line.update_lines(runs)\n"
    "runs['run 0'] = ('training', 'epoch 2'); line.update_lines(runs); line.update_lines(runs)\n"
    "runs['run 0'] = ('finished', ''); line.update_lines(runs); line.update_lines(runs, last=True)"
)


def test_terminal_shows_one_line_a_run_in_place():
    output = in_terminal(RUNS.replace("COUNT", "3"))
    assert screen(output.replace("\r\n", "\n")) == ["run 0: finished", "run 1: waiting", "run 2: waiting", ""]


def test_terminal_with_too_few_rows_shows_the_newest_runs_until_the_end(monkeypatch):
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("COLUMNS", "80")
    during = in_terminal(RUNS.replace("COUNT", "9").replace("line.update_lines(runs, last=True)", "line.end()"))
    assert screen(during.replace("\r\n", "\n"))[:4] == [
        "... 6 more",
        "run 6: waiting",
        "run 7: waiting",
        "run 8: waiting",
    ]
    shown = screen(in_terminal(RUNS.replace("COUNT", "9")).replace("\r\n", "\n"))
    assert shown == ["run 0: finished", *(f"run {number}: waiting" for number in range(1, 9)), ""]


def test_log_file_gets_a_line_for_each_change_of_a_run_but_not_for_every_epoch():
    output = subprocess.run([sys.executable, "-c", RUNS.replace("COUNT", "2")], capture_output=True, text=True).stdout
    changes = ["run 0: waiting", "run 1: waiting", "run 0: training, epoch 1", "run 0: finished"]
    assert output.splitlines() == changes
    every = RUNS.replace("COUNT", "2").replace("progress.REFRESH_SECONDS = 0", "progress.LOG_SECONDS = 0")
    output = subprocess.run([sys.executable, "-c", every], capture_output=True, text=True).stdout
    assert output.splitlines() == [*changes[:3], "run 0: training, epoch 2", changes[3]]
