"""Deliver a run's files to Drive, and report it; another process copies them."""

import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabcnn.colab import DRIVE_MOUNT
from colabcnn.drive.process import DriveProcess
from colabcnn.errors import AnotherRunError, Error
from colabcnn.store.checkpoint_files import FETCHED_SUFFIX, checkpoint_files, epoch_of
from colabcnn.store.files import FULL

# A request that takes longer is given up with its process, and a new process tries again.
HANG_SECONDS = 600
# The longest wait for Drive at the end of a run.
FINISH_SECONDS = 300
# The assumed time for copying 48 MB to Drive, until a copy has measured it.
_UNKNOWN_COPY_SECONDS = 15
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 30, 600


class Delivery:
    """Deliver a run's newest checkpoint to Drive at regular intervals; training never waits.

    At most one request is pending, and none is queued: a delivery takes the checkpoint that is newest when it begins.

    Args:
        local: the run's folder on this machine.
        drive: its folder on Drive.
        minutes: between two deliveries; 0 delivers at every call of `tick` if the last delivery is done.
        info: callable that shows a message.
        clock: callable that returns seconds.

    Attributes:
        begun: whether `begin` was called; Drive may not have answered yet.
        delivered: name of the newest checkpoint that is on Drive, or None.
        newer_session: number of a session that has taken the run over from this one, or None.
        copy_seconds: how long the last copy of a checkpoint took, or None.
        finishing: whether the last delivery is being made.
    """

    def __init__(
        self,
        local: str | Path,
        drive: str | Path,
        *,
        minutes: float,
        info: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.local = Path(local).absolute()
        self.drive = Path(drive).absolute()
        self.begun = False
        self.delivered = None
        self.newer_session = None
        self.copy_seconds = None
        self.finishing = False
        self._pause = minutes * 60
        self._info = info
        self._clock = clock
        self._session = {"session": None, "identity": uuid.uuid4().hex}
        self._fingerprint = None
        self._process = DriveProcess(self.local, self.drive)
        self._requested_at = self._due_at = clock()
        self._failures = 0
        self._reported = None
        self._last_error = None

    @property
    def reserved_seconds(self) -> float:
        """How many seconds to reserve for a delivery: twice those of the last copy."""
        return 2 * (self.copy_seconds or _UNKNOWN_COPY_SECONDS)

    def fetch(self, local_epoch: int, fingerprint: str | None = None) -> dict[str, Any]:
        """Fetch the newest checkpoint that verifies from Drive, if it is newer than `local_epoch`; see `DriveFolder`.

        Raises:
            AnotherRunError: Drive holds another run.
            Error: Drive cannot be read, and what to do.
        """
        response = self._call("fetch", local_epoch=local_epoch, fingerprint=fingerprint)
        if response["fetched"]:
            self.delivered = response["fetched"]
        return response

    def keep_fetched(self, name: str | None) -> None:
        """Add a fetched checkpoint to the run's; with None only delete what was fetched."""
        folder = self.local / "checkpoints"
        if name:
            os.replace(folder / f"{name}{FETCHED_SUFFIX}", folder / name)
        self.discard_fetched()

    def discard_fetched(self) -> None:
        """Delete the local copy of a fetched checkpoint."""
        for fetched in (self.local / "checkpoints").glob(f"*{FETCHED_SUFFIX}"):
            fetched.unlink(missing_ok=True)

    def move_aside(self, names: list[str] | None = None) -> str | None:
        """Move checkpoints on Drive aside, or with None the complete run; return the new folder or None.

        Raises:
            Error: Drive failed, and what to do.
        """
        response = self._call("move_aside", names=names)
        self.delivered = None
        return response["move_aside"]

    def begin(self, fingerprint: str | None) -> None:
        """Take the run over from older sessions on other machines; does not wait.

        Args:
            fingerprint: the run's.
        """
        self.begun = True
        self._fingerprint = fingerprint
        newest = next((path.name for path in checkpoint_files(self.local / "checkpoints")), None)
        # At once if Drive may lack the newest one: an interrupted session may have left it here.
        self._due_at = self._clock() + (self._pause if newest in (None, self.delivered) else 0)
        self._request()

    def tick(self) -> None:
        """Poll the response to the last request, and begin a delivery when one is due; wait a second at most."""
        self._poll_response(0)
        if self._process.busy and self._clock() - self._requested_at > HANG_SECONDS:
            self.close()
            self._handle_failure(self._process.no_response(HANG_SECONDS))
        elif not self._process.busy and self._clock() >= self._due_at:
            self._request()

    def finish(self, seconds: float, fingerprint: str | None = None) -> None:
        """Deliver the newest checkpoint, report the result, and end the process.

        Args:
            seconds: the most that this may take; a process that hangs on Drive is abandoned.
            fingerprint: the run's, if `begin` was not called.
        """
        self._fingerprint = fingerprint or self._fingerprint
        self.finishing, self._last_error = True, None
        deadline = self._clock() + seconds
        self._settle(deadline - seconds / 2)
        if self._process.busy:
            self.close()
        for _ in range(2 if self.begun and self._session["session"] is None else 1):
            self._request()
            self._settle(deadline)
        newest = next((path.name for path in checkpoint_files(self.local / "checkpoints")), None)
        if self.newer_session:
            self._info(f"A newer session trains this run in {self.drive}: this one delivers nothing more.")
        elif self.delivered and newest and epoch_of(self.delivered) >= epoch_of(newest):
            self._info(
                f"Epoch {epoch_of(self.delivered)} is in {self.drive}, read back and verified.{self._uploaded()}"
            )
        elif newest:
            reason = self._last_error or "it did not respond in time"
            self._info(
                f"Epoch {epoch_of(newest)} is not in {self.drive} yet ({reason}). It is in {self.local}; the next "
                "start there delivers it, if Drive works again."
            )
        self.close()

    def close(self) -> None:
        """End the process that copies to Drive."""
        self._process.close()

    def _settle(self, deadline):
        while self._process.busy and (left := deadline - self._clock()) > 0:
            self._poll_response(left)

    def _request(self):
        """Begin a delivery; before the first one, and again if that failed, take the run over."""
        if self._process.busy or self.newer_session:
            return
        self._requested_at = self._clock()
        if self.begun and self._session["session"] is None:
            self._process.request("begin", identity=self._session["identity"], fingerprint=self._fingerprint)
        else:
            session = {**self._session, "ended": self.finishing} if self.begun else None
            self._process.request("deliver", fingerprint=self._fingerprint, session=session)

    def _call(self, verb, **arguments):
        """Send a request and return its response; raise Error if it reports one, or does not come in time."""
        response = self._process.call(verb, **arguments)
        if "error" in response:
            self.close()
            raise (AnotherRunError if response.get("another_run") else Error)(self._error_text(response))
        return response

    def _poll_response(self, seconds):
        """Handle the response to the pending request, if it comes within `seconds`."""
        response = self._process.poll_response(seconds) if self._process.busy else None
        if response is None:
            return
        if "delivered" in response:
            self.delivered = response["delivered"]
            if response.get("copied"):
                self.copy_seconds = response["seconds"]
            self._due_at = self._requested_at + self._pause
        if "error" in response:
            self._handle_failure(response)
            return
        if self._reported is not None:
            self._info(f"{self.drive} responds again.")
        self._failures, self._reported, self._last_error = 0, None, None
        if "newer_session" in response:
            self.newer_session = response["newer_session"]
        elif "session" in response:
            self._session["session"] = response["session"]

    def _handle_failure(self, response):
        """Retry after growing pauses; report the failure once, until Drive responds again or another error comes."""
        self._last_error = response["error"]
        self._due_at = self._clock() + min(_FIRST_RETRY_SECONDS * 2**self._failures, _LAST_RETRY_SECONDS)
        self._failures += 1
        if self._reported != (response["errno"],) and not self.finishing:
            self._reported = (response["errno"],)
            promise = "" if response.get("another_run") else " and delivered when Drive responds"
            self._info(
                f"{self._error_text(response)} Training continues; its checkpoints are kept in {self.local}{promise}."
            )

    def _error_text(self, response):
        """Return a sentence on the error, and one on what to do."""
        advice = ""
        if response["errno"] in FULL:
            advice = " Make room there."
            if not response.get("local"):
                advice = " Make room there; on Google Drive, empty the trash too (drive.google.com, Trash)."
        elif response["errno"] == errno.ENOENT:
            advice = " Make the folder again, or give another one."
        elif response["errno"] in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ETIMEDOUT, errno.EIO):
            advice = " Mount it again."
            if DRIVE_MOUNT in self.drive.parents:
                advice = (
                    " Mount Drive again (from google.colab import drive; drive.mount('/content/drive', "
                    "force_remount=True))."
                )
        return f"{response['error']}.{advice}"

    def _uploaded(self):
        if DRIVE_MOUNT not in self.drive.parents:
            return ""
        return (
            " Google then uploads it, which the runtime cannot see: leave the runtime connected for a minute, or call "
            "drive.flush_and_unmount(), which waits."
        )
