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


def test_notebook_updates_one_line_and_the_outputs_below_it(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
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
