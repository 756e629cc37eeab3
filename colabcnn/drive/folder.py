"""A run's folder on Drive, where every call may fail, hang or tell of yesterday.

Only the process of `drive_process.py` comes here; training itself never touches Drive.
"""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from colabcnn.colab import DRIVE_MOUNT
from colabcnn.drive.sessions import NO_SESSION, newest_session, write_session
from colabcnn.errors import AnotherRunError, Error
from colabcnn.store.checkpoint_files import (
    FETCHED_SUFFIX,
    SMALL_FILES,
    checkpoint_files,
    epoch_of,
    is_checkpoint_name,
    newest_first,
    read_verified,
    retire,
    verifies,
)
from colabcnn.store.files import copy_atomically, discard, move_aside, remove_partials, retried, write_atomically


class DriveFolder:
    """Copy a run's files to Drive and back.

    Args:
        local: the run's folder on this machine.
        drive: its folder on Drive; made where Drive is there.
    """

    def __init__(self, local: str | Path, drive: str | Path):
        self.local = Path(local)
        self.drive = Path(os.path.realpath(drive))
        self._good = set()
        self._delivered = {}

    def fetch(self, have: int, run: str | None = None) -> dict[str, Any]:
        """Fetch the newest checkpoint that verifies to this machine, if it is newer than the newest one here.

        No file on Drive is changed, so it can be killed and repeated. Names come from the listing and from the newest
        session's file, since a listing may be stale.

        Args:
            have: epoch of the newest checkpoint here, 0 for none.
            run: what tells this run from others, or None where that is not known yet.

        Returns:
            A dict of `fetched` (the checkpoint's name or None; the file here has `FETCHED_SUFFIX` behind it, until the
            caller has seen that it is of the right run), `skipped` (by name, why newer ones were not taken),
            `unreadable` (whether one of those might be good, could it be read), `run` (what `run.json` on Drive holds,
            or None) and `session_run` (what the newest session tells its run by, or None where nothing was delivered).

        Raises:
            OSError: the folder cannot be read.
            AnotherRunError: it holds another run.
        """
        self._check_mount()
        session = newest_session(self.drive)
        self._check_run(session, run)
        names = {path.name for path in retried(checkpoint_files, self.drive / "checkpoints")}
        if is_checkpoint_name(session["newest"]):
            names.add(session["newest"])
        answer = {"fetched": None, "skipped": {}, "unreadable": False}
        answer |= {"run": self._read_run(), "session_run": session["run"] if session["newest"] else None}
        for name in newest_first(names):
            if epoch_of(name) <= have:
                break
            try:
                content = retried(read_verified, self.drive / "checkpoints" / name)
            except FileNotFoundError:
                answer["skipped"][name] = f"{name} was delivered to Drive, but Drive does not have it."
                answer["unreadable"] = True
            except OSError as error:
                answer["skipped"][name] = f"{name} cannot be read on Drive ({error.strerror})."
                answer["unreadable"] = True
            except Error as error:
                answer["skipped"][name] = f"On Drive, {error}"
            else:
                (self.local / "checkpoints").mkdir(parents=True, exist_ok=True)
                write_atomically(self.local / "checkpoints" / f"{name}{FETCHED_SUFFIX}", content)
                self._good.add(name)
                answer["fetched"] = name
                break
        with contextlib.suppress(OSError):
            if not (self.local / "test.json").exists():
                retried(copy_atomically, self.drive / "test.json", self.local / "test.json")
        return answer

    def begin(self, identity: str, run: str | None) -> dict[str, Any]:
        """Take over: write the next numbered session file, which an older session will find.

        Args:
            identity: str that no other session has.
            run: what tells this run from others.

        Returns:
            A dict of `session`, the number.

        Raises:
            OSError: what Drive said.
            AnotherRunError: the folder holds another run.
        """
        self._check_mount()
        before = newest_session(self.drive)
        self._check_run(before, run)
        remove_partials(self.drive, [*SMALL_FILES, "session-*"])
        number = before["session"] + 1
        write_session(self.drive, {"session": number, "identity": identity, "run": run, "newest": before["newest"]})
        return {"session": number}

    def deliver(self, run: str | None, session: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy the newest checkpoint and the small files to Drive, read them back, retire what is older.

        Args:
            run: what tells this run from others.
            session: dict of `session` and `identity`; None for a finished run, which takes over from nobody.

        Returns:
            A dict of `newer_session` (a number; nothing was delivered) or of `delivered`, the newest checkpoint's name;
            with what `failure` returns where it was something behind the checkpoint that failed.

        Raises:
            OSError: Drive's own; what was delivered before is kept.
            Error: what was read back is not what was written.
        """
        self._check_mount()  # Makes a folder again that has gone to the trash.
        newest = newest_session(self.drive)
        if session and (newest["session"], newest["identity"]) > (session["session"], session["identity"]):
            return {"newer_session": newest["session"]}
        self._check_run(newest, run)
        remove_partials(self.drive / "checkpoints", ["epoch-*"])  # Of a delivery that was given up.
        here = self._newest_here()
        if here is None:
            return {"delivered": None}
        name, content = here
        there = self._newest_good(least=epoch_of(name))
        if there and epoch_of(there) > epoch_of(name):
            return {"delivered": there}  # The same run further on: nothing newer is overwritten.
        if not there:
            self._deliver_checkpoint(name, content)
        answer = {"delivered": there or name}
        try:
            if session and not there:
                write_session(self.drive, {**session, "run": run, "newest": name})
            for small in SMALL_FILES:
                self._deliver_small(self.local / small)
            retire(self.drive / "checkpoints", self._good, remove=discard)
        except OSError as error:
            answer |= failure(error, self.local)
        return answer

    def move_aside(self, names: list[str] | None = None) -> dict[str, Any]:
        """Move checkpoints that cannot be used, or the whole run, into a folder beside them.

        Args:
            names: of checkpoints; None takes all of them and the small files, and leaves no run there.

        Returns:
            A dict of `move_aside`, the new folder or None where nothing was there.
        """
        self._check_mount()
        there = checkpoint_files(self.drive / "checkpoints")
        if names is None:
            there += [self.drive / name for name in SMALL_FILES if (self.drive / name).exists()]
            # An older session gives way to it, and nobody looks for the checkpoint that the last one names.
            write_session(self.drive, {**NO_SESSION, "session": newest_session(self.drive)["session"] + 1})
        else:
            there = [path for path in there if path.name in names]
        return {"move_aside": str(move_aside(self.drive, there)) if there else None}

    def _check_mount(self):
        """Make the folder, but not a plain one in place of Drive: it would prevent the next mount, and be lost.

        Below `/content/drive` that must be a mount point. Elsewhere it is the mount point that the folder lay on when
        the run first used it, noted in `drive.json`.
        """
        note = self.local / "drive.json"
        try:
            content = json.loads(note.read_text(encoding="utf-8"))
            noted = Path(content["mount"]) if content["drive"] == str(self.drive) else None
        except (OSError, ValueError, KeyError, TypeError):
            noted = None
        mount = DRIVE_MOUNT if DRIVE_MOUNT in self.drive.parents else noted
        if mount is None:
            mount = next(path for path in (self.drive, *self.drive.parents) if os.path.ismount(path))
        elif not os.path.ismount(mount):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(mount))
        os.makedirs(self.drive / "checkpoints", exist_ok=True)
        if noted is None:
            write_atomically(note, json.dumps({"drive": str(self.drive), "mount": str(mount)}))

    def _check_run(self, session, run):
        # A session that came to no checkpoint binds nobody.
        if session["newest"] and None not in (run, session["run"]) and run != session["run"]:
            raise AnotherRunError(f"{self.drive} holds another run; use another folder")

    def _read_run(self):
        """Return the dict that `run.json` holds, or None where it cannot be read."""
        try:
            run = json.loads(retried((self.drive / "run.json").read_text, encoding="utf-8"))
            return run if isinstance(run, dict) else None
        except (OSError, RecursionError, ValueError):
            return None

    def _newest_here(self):
        """Return the name and the content of the newest local checkpoint that verifies, or None.

        All of it at once: training continues and retires files meanwhile.
        """
        for path in checkpoint_files(self.local / "checkpoints"):
            with contextlib.suppress(Error, FileNotFoundError):
                return path.name, read_verified(path)
        return None

    def _newest_good(self, least):
        """Return the name of the newest checkpoint on Drive that verifies, of those from an epoch on, or None."""
        for path in checkpoint_files(self.drive / "checkpoints"):
            if epoch_of(path) < least:
                return None
            if path.name in self._good or verifies(path):
                self._good.add(path.name)
                return path.name
        return None

    def _deliver_checkpoint(self, name, content):
        target = self.drive / "checkpoints" / name
        write_atomically(target, content)
        try:
            read_verified(target)
        except Error:
            discard(target)
            raise Error(f"{name} reads back from {self.drive} other than it was written") from None
        self._good.add(name)

    def _deliver_small(self, path):
        """Copy a small file if it is there and has changed since it was copied."""
        if not path.exists():
            return
        stat = path.stat()
        if self._delivered.get(path.name) != (stat.st_mtime_ns, stat.st_size):
            copy_atomically(path, self.drive / path.name)
            self._delivered[path.name] = (stat.st_mtime_ns, stat.st_size)


def failure(error: OSError, local: str | Path) -> dict[str, Any]:
    """Return an OSError as a dict of `errno`, `error` (a sentence) and `local` (whether that disk failed)."""
    filename = str(error.filename or "")
    message = f"{filename}: {error.strerror}" if filename else str(error)
    return {"errno": error.errno, "error": message, "local": filename.startswith(f"{local}{os.sep}")}
