"""Progress is one line that updates in place; 700 epochs do not print 700 lines."""

import os
import pty
import subprocess
import sys

import pytest

from colabcnn.training import progress
from colabcnn.training.progress import ProgressLine, duration

pytestmark = pytest.mark.versions

SEVEN_HUNDRED = (
    "from colabcnn.training import progress as progress; progress.REFRESH_SECONDS = 0; line = progress.ProgressLine()\n"
    "for epoch in range(1, 701): line.update(lambda: f'epoch {epoch}/700', milestone=True, last=epoch == 700)"
)


def test_terminal_shows_one_line(tmp_path):
    reader, writer = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SEVEN_HUNDRED], stdout=writer, close_fds=True)
    os.close(writer)
    output = b""
    try:
        while part := os.read(reader, 1 << 16):
            output += part
    except OSError:  # On Linux, reading a closed terminal fails.
        pass
    assert process.wait() == 0
    assert output.count(b"\n") == 1
    assert output.rstrip().endswith(b"epoch 700/700")


def test_log_file_gets_the_first_and_the_last_epoch_and_no_control_codes():
    output = subprocess.run([sys.executable, "-c", SEVEN_HUNDRED], capture_output=True, text=True).stdout
    assert output.splitlines() == ["epoch 1/700", "epoch 700/700"]


def test_notebook_updates_one_line_and_one_picture(monkeypatch):
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
    line.picture(b"PNG")
    assert published[-2][0] == {"text/plain": "epoch 700/700"}
    assert published[-1][0]["image/png"] == "UE5H"
    assert [options.get("update", False) for _, options in published] == [False] + [True] * 699 + [False]
    assert len({options["transient"]["display_id"] for _, options in published}) == 2


def test_quiet_prints_nothing(capsys):
    line = ProgressLine(quiet=True)
    line.info("hello")
    line.update(lambda: "epoch", last=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (37800, "10 h 30 min"), (-3, "0 s")]
)
def test_duration_has_at_most_two_units(seconds, text):
    assert duration(seconds) == text
