"""The process that goes to Drive, so that whatever Drive does cannot stop training.

A call to a mount that has hung cannot be taken back by the thread that made it, nor by its process: the process stays
until the call returns. So the calls are made by a process that training can do without, and leave behind.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from colabcnn.drive.folder import DriveFolder, failure
from colabcnn.errors import AnotherRunError

# Isolated and with the library's folder last: of the user's own modules none is imported there.
_START = "import sys; sys.path.append(sys.argv.pop(1)); from colabcnn.drive.process import main; main()"
_LIBRARY = str(Path(__file__).resolve().parents[2])


class DriveProcess:
    """A `DriveFolder` in a process of its own; one request at a time, none of which waits.

    Args:
        local: as for `DriveFolder`.
        drive: as for `DriveFolder`.
    """

    def __init__(self, local: str | Path, drive: str | Path):
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, _LIBRARY, str(local), str(drive), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Left behind, it would keep open what it inherits, and `train ... | tee log` from ending.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for training, which ends it in order.
            )
        self.busy = False

    def request(self, verb: str, **arguments: Any) -> None:
        """Begin a request; its answer comes through `answer`."""
        self.busy = True
        self._connection.send_bytes(json.dumps({"verb": verb, "arguments": arguments}).encode())

    def answer(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """Return the answer to the request, or None while there is none after so many seconds.

        An answer is the dict that the method returned, or one of `errno` (None where it is not the disk's), `error` (a
        sentence) and, where they are true, `local` (it is this machine's disk that failed) and `another_run`; either
        with the `seconds` that it took.

        Raises:
            EOFError: the process has died.
        """
        try:
            if not self._connection.poll(seconds):
                return None
            answer = json.loads(self._connection.recv_bytes())
        except ConnectionError:
            raise EOFError from None
        self.busy = False
        return answer

    def close(self) -> None:
        """End the process; one that hangs in a call is left behind, and ends with the call."""
        self._connection.close()
        if self.busy:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)


def main() -> None:
    """Answer requests until training closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    local, drive, descriptor = sys.argv[1:]
    folder = DriveFolder(local, drive)
    connection = Connection(int(descriptor))
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        began = time.monotonic()
        try:
            answer = getattr(folder, request["verb"])(**request["arguments"])
        except OSError as error:
            answer = failure(error, local)
        except AnotherRunError as error:
            answer = {"errno": None, "error": str(error), "another_run": True}
        except Exception as error:  # Whatever it is, it is no reason for training to stop.
            answer = {"errno": None, "error": str(error) or type(error).__name__}
        answer["seconds"] = time.monotonic() - began
        try:
            connection.send_bytes(json.dumps(answer).encode())
        except ConnectionError:
            return
