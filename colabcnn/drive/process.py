"""The process that reads and writes Drive, so that Drive cannot stop training.

A call to a hung mount cannot be cancelled, not even by ending its process: the process stays until the call returns. So
a separate process makes the calls; training can abandon it.
"""

import contextlib
import errno
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
from colabcnn.own_process import abandon, command_of

# A working Drive responds sooner: 48 MB are read in seconds, and a failed read is tried four times.
CALL_SECONDS = 180


class DriveProcess:
    """A `DriveFolder` in a separate process; it takes one request at a time, and `request` does not wait.

    A request starts the process if there is none, or if it has died since the last response.

    Args:
        local: as for `DriveFolder`.
        drive: as for `DriveFolder`.
    """

    def __init__(self, local: str | Path, drive: str | Path):
        self.busy = False
        self._folders = str(local), str(drive)
        self._process = None

    def request(self, verb: str, **arguments: Any) -> None:
        """Send a request; `poll_response` returns its response."""
        self.busy = True
        with contextlib.suppress(OSError):  # `poll_response` reports it.
            if self._process is None or self._process.poll() is not None:
                self._start()
            self._connection.send_bytes(json.dumps({"verb": verb, "arguments": arguments}).encode())

    def _start(self):
        self._connection, other_end = Pipe()
        with other_end:
            self._process = subprocess.Popen(
                command_of("drive.process", *self._folders, other_end.fileno()),
                pass_fds=[other_end.fileno()],
                # An abandoned process would keep inherited streams open, and `train ... | tee log` would not end.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C must reach training only, which then ends this process.
            )

    def poll_response(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """Return the response to the request, or None if none comes within `seconds`.

        A response is the dict that the method returned, or a dict of `errno` (None if it is no error of a disk),
        `error` (a sentence) and, if true, `local` (this machine's disk failed) and `another_run`. Either also has the
        `seconds` that the request took, unless the process has died.
        """
        try:
            if self._process is None:
                raise EOFError  # It could not be started.
            if not self._connection.poll(seconds):
                return None
            response = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.close()
            return {"errno": None, "error": "the process that copies to Drive has died"}
        self.busy = False
        return response

    def call(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return its response, or an error after `CALL_SECONDS`."""
        self.request(verb, **arguments)
        return self.poll_response(CALL_SECONDS) or self.no_response(CALL_SECONDS)

    def no_response(self, seconds: float) -> dict[str, Any]:
        """Return the error that stands for a response that has not come within `seconds`."""
        return {"errno": errno.ETIMEDOUT, "error": f"{self._folders[1]} has not responded for {seconds} s"}

    def close(self) -> None:
        """End the process, if there is one; one that hangs in a call is abandoned, and ends with the call."""
        process, was_busy, self._process, self.busy = self._process, self.busy, None, False
        if process is None:
            return
        self._connection.close()
        if was_busy:
            process.kill()
        abandon(process)


def main() -> None:
    """Respond to requests until training closes the connection or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    local, drive, descriptor = sys.argv[1:]
    folder = DriveFolder(local, drive)
    connection = Connection(int(descriptor))
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        start = time.monotonic()
        try:
            response = getattr(folder, request["verb"])(**request["arguments"])
        except OSError as error:
            response = failure(error, local)
        except AnotherRunError as error:
            response = {"errno": None, "error": str(error), "another_run": True}
        except Exception as error:  # No error here may stop training.
            response = {"errno": None, "error": str(error) or type(error).__name__}
        response["seconds"] = time.monotonic() - start
        try:
            connection.send_bytes(json.dumps(response).encode())
        except ConnectionError:
            return
