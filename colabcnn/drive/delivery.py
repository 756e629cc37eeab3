"""When a run's files are copied to Drive, and the messages about it; another process does the copying."""

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

# A Drive that answers at all answers sooner: 48 MB are read in seconds, and a failed read is tried four times.
FETCH_SECONDS = 180
# A request that takes longer is given up with its process, and a new one tries again.
HANG_SECONDS = 600
# At the end of a run Drive is waited for so long at most.
FINISH_SECONDS = 300
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 15, 600
_DIED = {"errno": None, "error": "the process that goes to Drive has died"}


class Delivery:
    """Deliver a run's newest checkpoint to Drive every so many minutes, without ever making training wait.

    At most one request is on its way and nothing is queued: a delivery takes what is newest when it begins.

    Args:
        local: the run's folder on this machine.
        drive: its folder on Drive.
        minutes: between two deliveries; 0 delivers at every call of `tick` that finds the last one done.
        info: callable that shows a message.
        clock: callable that returns seconds.
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
        self.seconds = None
        self._pause = minutes * 60
        self._info = info
        self._clock = clock
        self._session = {"session": None, "identity": uuid.uuid4().hex, "run": None}
        self._process = None
        self._requested_at = self._due_at = clock()
        self._failures = 0
        self._reported = None
        self._last_error = None
        self._finishing = False

    def fetch(self, have: int, run: str | None = None) -> dict[str, Any]:
        """Fetch the newest checkpoint that verifies from Drive, if it is newer than epoch `have`; see `DriveFolder`.

        Raises:
            AnotherRunError: Drive holds another run.
            Error: Drive cannot be read, and what to do.
        """
        answer = self._wait("fetch", have=have, run=run)
        if answer["fetched"]:
            self.delivered = answer["fetched"]
        return answer

    def take(self, name: str | None) -> None:
        """Put a checkpoint that was fetched among the run's, or with None remove what was fetched."""
        folder = self.local / "checkpoints"
        if name:
            os.replace(folder / f"{name}{FETCHED_SUFFIX}", folder / name)
        for fetched in folder.glob(f"*{FETCHED_SUFFIX}"):
            fetched.unlink(missing_ok=True)

    def move_aside(self, names: list[str] | None = None) -> str | None:
        """Set checkpoints on Drive aside, or with None the whole run; return the new folder or None.

        Raises:
            Error: Drive did not do it, and what to do.
        """
        answer = self._wait("move_aside", names=names)
        self.delivered = None
        return answer["move_aside"]

    def begin(self, run: str) -> None:
        """Take the run over from older sessions on other machines; does not wait.

        Args:
            run: what tells this run from others.
        """
        self.begun = True
        self._session["run"] = run
        self._due_at = self._clock() + self._pause
        self._request()

    def tick(self) -> None:
        """Take note of what was delivered, and begin a delivery when one is due; never waits."""
        self._poll_response(0)
        if self._busy() and self._clock() - self._requested_at > HANG_SECONDS:
            self.close()
            self._failed({"errno": errno.ETIMEDOUT, "error": f"{self.drive} has not answered for {HANG_SECONDS} s"})
        elif not self._busy() and self._clock() >= self._due_at:
            self._request()

    def finish(self, seconds: float, run: str | None = None) -> None:
        """Deliver what is newest, say what came of it, and end, in so many seconds at most.

        A Drive that hangs is left behind.

        Args:
            seconds: for all of it.
            run: what tells this run from others, where `begin` was not called.
        """
        self._session["run"] = run or self._session["run"]
        self._finishing, self._last_error = True, None
        deadline = self._clock() + seconds
        self._settle(deadline - seconds / 2)
        if self._busy():
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
            reason = self._last_error or "it did not answer in time"
            self._info(
                f"Epoch {epoch_of(newest)} is not in {self.drive} yet ({reason}). It is in {self.local}; the same "
                "call delivers it when Drive is back."
            )
        self.close()

    def close(self) -> None:
        """End the process that goes to Drive."""
        if self._process:
            self._process.close()
            self._process = None

    def _busy(self):
        return self._process is not None and self._process.busy

    def _settle(self, deadline):
        while self._busy() and (left := deadline - self._clock()) > 0:
            self._poll_response(left)

    def _request(self):
        """Begin a delivery; before the first one, and where that failed, take the run over."""
        if self._busy() or self.newer_session:
            return
        if self.begun and self._session["session"] is None:
            self._send("begin", identity=self._session["identity"], run=self._session["run"])
        else:
            session = {key: self._session[key] for key in ("session", "identity")}
            self._send("deliver", run=self._session["run"], session=session if self.begun else None)

    def _send(self, verb, **arguments):
        self._requested_at = self._clock()
        try:
            if self._process is None:
                self._process = DriveProcess(self.local, self.drive)
            self._process.request(verb, **arguments)
        except OSError:
            self.close()
            self._failed(_DIED)

    def _wait(self, verb, **arguments):
        """Ask and return the answer; Error where it tells of one, or where there is none in time."""
        self._send(verb, **arguments)
        try:
            answer = self._process.answer(FETCH_SECONDS) if self._process else _DIED
        except EOFError:
            answer = _DIED
        if answer is None:
            answer = {"errno": errno.ETIMEDOUT, "error": f"{self.drive} has not answered for {FETCH_SECONDS} s"}
        if "error" in answer:
            self.close()
            raise (AnotherRunError if answer.get("another_run") else Error)(self._advice(answer))
        return answer

    def _poll_response(self, seconds):
        """Take in the answer to the request on its way, if it comes within so many seconds."""
        if self._process is None or not self._process.busy:
            return
        try:
            answer = self._process.answer(seconds)
        except EOFError:
            self.close()
            answer = _DIED
        if answer is None:
            return
        if "delivered" in answer:
            self.delivered, self.seconds = answer["delivered"], answer["seconds"]
            self._due_at = self._requested_at + self._pause
        if "error" in answer:
            self._failed(answer)
            return
        if self._reported is not None:
            self._info(f"{self.drive} answers again.")
        self._failures, self._reported, self._last_error = 0, None, None
        if "newer_session" in answer:
            self.newer_session = answer["newer_session"]
        elif "session" in answer:
            self._session["session"] = answer["session"]

    def _failed(self, answer):
        """Try again later and later, and say it once until Drive answers again or something else is wrong."""
        self._failures += 1
        self._last_error = answer["error"]
        self._due_at = self._clock() + min(_FIRST_RETRY_SECONDS * 2**self._failures, _LAST_RETRY_SECONDS)
        if self._reported != (answer["errno"],) and not self._finishing:
            self._reported = (answer["errno"],)
            kept = "" if answer.get("another_run") else " and delivered when Drive answers"
            self._info(f"{self._advice(answer)} Training continues; its checkpoints are kept in {self.local}{kept}.")

    def _advice(self, answer):
        """Return a sentence on what is wrong, and one on what to do."""
        todo = ""
        if answer["errno"] in (errno.ENOSPC, errno.EDQUOT):
            todo = " Make room there."
            if not answer.get("local"):
                todo = " Make room there; on Google Drive, empty the trash too (drive.google.com, Trash)."
        elif answer["errno"] == errno.ENOENT:
            todo = " Make the folder again, or give another one."
        elif answer["errno"] in (errno.ENOTCONN, errno.ENODEV, errno.ETIMEDOUT, errno.EIO):
            todo = " Mount it again, then give the same call again."
            if DRIVE_MOUNT in self.drive.parents:
                todo = (
                    " Mount Drive again (from google.colab import drive; drive.mount('/content/drive', "
                    "force_remount=True)), then give the same call again."
                )
        return f"{answer['error']}.{todo}"

    def _uploaded(self):
        if DRIVE_MOUNT not in self.drive.parents:
            return ""
        return (
            " Google uploads it after that, which cannot be seen from here: leave the runtime connected for a minute, "
            "or call drive.flush_and_unmount(), which waits."
        )
