"""A run's folder on Drive, where every call may fail, hang or return stale data.

Only the process in `process.py` uses it; training itself never touches Drive.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from colabcnn.drive.mount import Mount
from colabcnn.drive.sessions import NO_SESSION, newest_session, write_session
from colabcnn.errors import MALFORMED, AnotherRunError, Error
from colabcnn.store.checkpoint_files import (
    FETCHED_SUFFIX,
    KEEP,
    SMALL_FILES,
    TEST_JSON,
    checkpoint_files,
    epoch_of,
    read_verified,
    retire,
    verifies,
)
from colabcnn.store.files import FULL, copy_atomically, discard, move_aside, remove_partials, retried, write_atomically


class DriveFolder:
    """Copy a run's files to Drive and back.

    Args:
        local: the run's folder on this machine.
        drive: its folder on Drive; made if Drive is mounted.
    """

    def __init__(self, local: str | Path, drive: str | Path):
        self.local = Path(local)
        self.drive = Path(os.path.realpath(drive))
        self._mount = Mount(self.local, self.drive)
        self._good = set()
        self._delivered = {}

    def fetch(self, local_epoch: int, fingerprint: str | None = None) -> dict[str, Any]:
        """Fetch the newest checkpoint that verifies to this machine, if it is newer than the newest one here.

        It changes no file on Drive, so it can be killed and repeated. Names come from the listing and from the newest
        session's file, since a listing may be stale.

        Args:
            local_epoch: epoch of the newest checkpoint here, 0 for none.
            fingerprint: the run's, or None if it is not known yet.

        Returns:
            A dict of `fetched` (the checkpoint's name or None; the local file has `FETCHED_SUFFIX` behind it, until the
            caller has checked that it is the right run's), `skipped` (by name, why newer ones were not taken),
            `unreadable` (whether one of those could not be read, and so may be good), `record` (the content of Drive's
            `run.json`, or None) and `fingerprint` (the newest session's run's, or None if it delivered nothing).

        Raises:
            OSError: the folder cannot be read.
            AnotherRunError: it holds another run.
        """
        self._mount.make_folder()
        session = newest_session(self.drive)
        self._check_run(session, fingerprint)
        response = {"fetched": None, "skipped": {}, "unreadable": False}
        response |= {"record": self._read_record(), "fingerprint": session["run"] if session["newest"] else None}
        for path in retried(checkpoint_files, self.drive / "checkpoints", known=session["newest"]):
            name = path.name
            if epoch_of(name) <= local_epoch:
                break
            try:
                content = retried(read_verified, path)
            except FileNotFoundError:
                response["skipped"][name] = f"{name} was delivered to Drive, but Drive does not have it."
                response["unreadable"] = True
            except OSError as error:
                response["skipped"][name] = f"{name} cannot be read on Drive ({error.strerror})."
                response["unreadable"] = True
            except Error as error:
                response["skipped"][name] = f"On Drive, {error}"
            else:
                (self.local / "checkpoints").mkdir(parents=True, exist_ok=True)
                write_atomically(self.local / "checkpoints" / f"{name}{FETCHED_SUFFIX}", content)
                self._good.add(name)
                response["fetched"] = name
                break
        return response

    def begin(self, identity: str, fingerprint: str | None) -> dict[str, Any]:
        """Take the run over: write the next numbered session file, which an older session will find.

        Args:
            identity: str, unique to this session.
            fingerprint: the run's.

        Returns:
            A dict of `session`, the number.

        Raises:
            OSError: an error of Drive.
            AnotherRunError: the folder holds another run.
        """
        self._mount.make_folder()
        newest = newest_session(self.drive)
        self._check_run(newest, fingerprint)
        remove_partials(self.drive, ["session-*"])
        number = newest["session"] + 1
        write_session(
            self.drive, {"session": number, "identity": identity, "run": fingerprint, "newest": newest["newest"]}
        )
        self._mount.note(session=identity)
        return {"session": number}

    def deliver(self, fingerprint: str | None, session: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy the newest checkpoint and the small files to Drive, read it back, and retire older ones.

        Args:
            fingerprint: the run's.
            session: dict of `session`, `identity` and `ended`; None for a finished run, which does not take over.

        Returns:
            A dict of `newer_session` (a number; nothing was delivered) or of `delivered`, the newest checkpoint's name,
            and `copied`, whether it was not there before; with the entries of `failure` if a step after the checkpoint
            failed.

        Raises:
            OSError: an error of Drive; earlier deliveries are kept.
            Error: the bytes read back differ from those written.
        """
        self._mount.make_folder()
        newest = newest_session(self.drive)
        if session and (newest["session"], newest["identity"]) > (session["session"], session["identity"]):
            return {"newer_session": newest["session"]}
        self._check_run(newest, fingerprint)
        remove_partials(self.drive, SMALL_FILES)  # Of a delivery that was given up.
        remove_partials(self.drive / "checkpoints", ["epoch-*"])
        name, content = self._newest_local()
        on_drive = self._newest_on_drive(least=epoch_of(name)) if name else None
        # A later state of the run on Drive is kept.
        if not name or (on_drive and epoch_of(on_drive) > epoch_of(name)):
            if session and session.get("ended"):
                write_session(self.drive, {**session, "run": fingerprint, "newest": newest["newest"]})
            return {"delivered": on_drive}
        self._fetch_measured()
        if not on_drive:
            self._deliver_checkpoint(name, content)
        response = {"delivered": on_drive or name, "copied": not on_drive}
        try:
            if session and (not on_drive or session.get("ended")):
                write_session(self.drive, {**session, "run": fingerprint, "newest": on_drive or name})
            for small in SMALL_FILES:
                self._deliver_small(self.local / small)
            retire(self.drive / "checkpoints", self._good, remove=discard)
        except OSError as error:
            response |= failure(error, self.local)
        return response

    def claim(self, identity: str | None, idle_seconds: float) -> dict[str, Any]:
        """Start a session before the run starts, so that other machines leave the run alone.

        Args:
            identity: str, unique to this session; None only looks for another machine's session.
            idle_seconds: after this time without a start or a delivery, another machine's session counts as dead.

        Returns:
            A dict of `active`: how many seconds ago another machine's session, which is not dead, was active; then
            nothing was changed. None if there is none.

        Raises:
            OSError: an error of Drive.
            AnotherRunError: the folder holds another run.
        """
        newest = NO_SESSION
        with contextlib.suppress(FileNotFoundError):
            newest = newest_session(self.drive)
            is_own = newest["identity"] == self._mount.read_note().get("session")
            # A time in the future is another machine's clock, or one that was set back since.
            age = abs(time.time() - os.stat(self.drive / f"session-{newest['session']}.json").st_mtime)
            if age < idle_seconds and not is_own and not newest["ended"]:
                return {"active": age}
        if identity is not None:
            self.begin(identity, newest["run"])
            # Of two machines that claim at the same time, the one whose file was replaced gives way.
            return {"active": None if newest_session(self.drive)["identity"] == identity else 0}
        return {"active": None}

    def release(self, identity: str) -> dict[str, Any]:
        """End a session that `claim` has started, unless a newer one has taken over."""
        newest = newest_session(self.drive)
        if newest["identity"] == identity:
            write_session(self.drive, {**newest, "ended": True})
        return {}

    def move_aside(self, names: list[str] | None = None) -> dict[str, Any]:
        """Move unusable checkpoints, or the complete run, into a folder beside them.

        Args:
            names: of checkpoints; None takes all of them and the small files, so that no run is left there.

        Returns:
            A dict of `move_aside`, the new folder, or None if there was no file to move.
        """
        self._mount.make_folder()
        folder = self.drive / "checkpoints"
        paths = checkpoint_files(folder)
        if names is None:
            # The folder itself, so that what is moved is a run.
            paths = [folder] if paths else []
            paths += [self.drive / name for name in SMALL_FILES if (self.drive / name).exists()]
            # It stops older sessions, and no later session looks for the moved checkpoint.
            write_session(self.drive, {"session": newest_session(self.drive)["session"] + 1, "ended": True})
        else:
            paths = [path for path in paths if path.name in names]
            newest = newest_session(self.drive)
            if newest["newest"] in names:
                write_session(self.drive, {**newest, "newest": None})
        return {"move_aside": str(move_aside(self.drive, paths)) if paths else None}

    def _check_run(self, session, fingerprint):
        # A session that delivered no checkpoint does not count.
        if session["newest"] and None not in (fingerprint, session["run"]) and fingerprint != session["run"]:
            raise AnotherRunError(f"{self.drive} holds another run; use another folder")

    def _read_record(self):
        """Return the dict in `run.json`, or None if it cannot be read."""
        try:
            record = json.loads(retried((self.drive / "run.json").read_text, encoding="utf-8"))
            return record if isinstance(record, dict) else None
        except (OSError, RecursionError, ValueError):
            return None

    def _fetch_measured(self):
        """Copy what `evaluate` has measured of a later epoch on another machine.

        Not before it is certain that Drive holds this run.
        """
        here, there = self.local / TEST_JSON, self.drive / TEST_JSON
        with contextlib.suppress(OSError):
            if _measured_epoch(there) > _measured_epoch(here):
                retried(copy_atomically, there, here)

    def _newest_local(self):
        """Return the name and the content of the newest local checkpoint that verifies, or `(None, b"")`.

        The content is read at once, since training continues and may retire the file.
        """
        for path in checkpoint_files(self.local / "checkpoints"):
            with contextlib.suppress(Error, FileNotFoundError):
                return path.name, read_verified(path)
        return None, b""

    def _newest_on_drive(self, least):
        """Return the name of the newest checkpoint on Drive that verifies, from epoch `least` on, or None."""
        for path in checkpoint_files(self.drive / "checkpoints"):
            if epoch_of(path) < least:
                return None
            if path.name in self._good or verifies(path):
                self._good.add(path.name)
                return path.name
        return None

    def _deliver_checkpoint(self, name, content):
        target = self.drive / "checkpoints" / name
        for keep in range(KEEP - 1, -1, -1):
            try:
                write_atomically(target, content)
                break
            except OSError as error:
                if error.errno not in FULL or not keep:
                    raise
                # The older ones make room; the newest good one stays until the new one is there.
                retire(self.drive / "checkpoints", self._good, remove=discard, keep=keep)
        try:
            read_verified(target)
        except Error:
            discard(target)
            raise Error(f"{name}, read back from {self.drive}, differs from the written file") from None
        self._good.add(name)

    def _deliver_small(self, path):
        """Copy a small file if it exists and has changed since the last copy."""
        if not path.exists():
            return
        stat = path.stat()
        if self._delivered.get(path.name) != (stat.st_mtime_ns, stat.st_size):
            copy_atomically(path, self.drive / path.name)
            self._delivered[path.name] = (stat.st_mtime_ns, stat.st_size)


def _measured_epoch(path):
    """Return the epoch that `evaluate` has measured, -1 if there is no file, 0 if it cannot be read."""
    try:
        return int(json.loads(retried(path.read_text, encoding="utf-8"))["epoch"])
    except FileNotFoundError:
        return -1
    except (OSError, *MALFORMED):
        return 0


def failure(error: OSError, local: str | Path) -> dict[str, Any]:
    """Return an OSError as a dict of `errno`, `error` (a sentence) and `local` (whether the local disk failed)."""
    filename = str(error.filename or "")
    message = f"{filename}: {error.strerror}" if filename else str(error)
    return {"errno": error.errno, "error": message, "local": filename.startswith(f"{local}{os.sep}")}
