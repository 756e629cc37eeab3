"""The one way out for what this library prints: a training is worth more than its messages."""

import os
import subprocess
import sys
from typing import Any, TextIO

# Lines of absl's C++ logging at INFO and WARNING, such as "I0000 00:00:1795747974.4 18079 port.cc:153] oneDNN ...", and
# the harmless errors of TensorFlow's import on a GPU: "Unable to register cuDNN factory: ...".
NOTICE = r"^[IW][0-9]{4} [0-9:.]+ +[0-9]+ [^ ]+:[0-9]+\]|^WARNING: All log messages before absl::InitializeLog"
NOTICE += r"|^E[0-9]{4} .*\] Unable to register cu[A-Z]+ factory"


def write(text: str = "", *, end: str = "\n", stream: TextIO | None = None) -> None:
    """Print a text at once.

    A stream that is missing, closed, full or has lost its reader drops the text. A character that the stream's
    encoding lacks becomes "?".

    Args:
        text: what to print.
        end: what follows it.
        stream: `sys.stdout` if None.
    """
    stream = stream or sys.stdout  # None under pythonw, and in some services: then `print` drops the text.
    try:
        try:
            print(text, end=end, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            print(text.encode(encoding, "replace").decode(encoding), end=end, file=stream, flush=True)
    except Exception:  # Whatever a stream does that is closed, full, without a reader, or no file.
        pass


def running_shell() -> Any:
    """Return IPython's shell if one runs us, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs us."""
    return hasattr(running_shell(), "kernel")


def drop_notices() -> None:
    """Keep TensorFlow's notices about processor, CUDA and XLA off stderr, unless TF_CPP_MIN_LOG_LEVEL is 0.

    TensorFlow writes them in C++ at import, before it reads TF_CPP_MIN_LOG_LEVEL. `grep` filters what this process and
    its children write to file descriptor 2: a crash of this process loses nothing that it wrote. `sys.stderr` is not
    filtered. Without `grep` only that variable is set, to 3 if it is not set. A second call does nothing.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0" or hasattr(drop_notices, "grep"):
        return
    # A session of its own, so that Ctrl-C does not end it before this process.
    command = ["grep", "--line-buffered", "-a", "-v", "-E", NOTICE]
    try:
        unfiltered = os.dup(2)
        grep = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=unfiltered, start_new_session=True)
    except OSError:
        return
    assert grep.stdin is not None  # For the type checker: it is a pipe.
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = open(unfiltered, "w", encoding=sys.stderr.encoding, errors="replace", buffering=1)  # noqa: SIM115
    os.dup2(grep.stdin.fileno(), 2)
    grep.stdin.close()
    drop_notices.grep = grep  # It ends after this process; without a reference Python warns that it still runs.
