"""The session that trains a run. Drive has no locks: each session writes a numbered file, and the newest one wins.

A session is a dict of `session` (its number, from 1), `identity` (a unique text), `run` (the run's fingerprint) and
`newest` (the name of the newest delivered checkpoint, or None); `ended` is true once it trains no more.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from colabcnn.errors import MALFORMED
from colabcnn.store.files import retried, write_atomically

NO_SESSION = {"session": 0, "identity": "", "run": None, "newest": None, "ended": False}
_NAME = re.compile(r"session-(\d+)(?: \(\d+\))?\.json")  # Drive calls a second file of that name "session-3 (1)".


def newest_session(drive: Path) -> dict[str, Any]:
    """Return the newest session in a run's folder on Drive, `NO_SESSION` for none.

    Numbers that the listing does not show yet are looked for by name. If two files have the same number, the greater
    identity counts, so that both writers decide alike.

    Raises:
        OSError: the folder cannot be read.
    """
    by_number = {}
    for name in retried(os.listdir, drive):
        if match := _NAME.fullmatch(name):
            by_number.setdefault(int(match[1]), []).append(name)
    number = max(by_number, default=0)
    found = [_read(drive / name) for name in by_number.get(number, ())]
    while (next_one := _read(drive / f"session-{number + 1}.json", is_listed=False)) is not None:
        number, found = number + 1, [next_one]
    newest = max((session for session in found if session), key=lambda session: session["identity"], default={})
    return {**NO_SESSION, **newest, "session": number}


def write_session(drive: Path, session: dict[str, Any]) -> None:
    """Write a session's file.

    Raises:
        OSError: an error of Drive.
    """
    write_atomically(drive / f"session-{session['session']}.json", json.dumps({**NO_SESSION, **session}) + "\n")


def _read(path, is_listed=True):
    """Return a session file's dict, an empty one if it is broken or unreadable, None if it is missing.

    A file that is not listed and cannot be read may not exist: then the error is raised.
    """
    try:
        session = json.loads(retried(path.read_text, encoding="utf-8"))
        texts = (session["identity"], session["run"] or "", session["newest"] or "")
        return {key: session[key] for key in NO_SESSION} if all(isinstance(text, str) for text in texts) else {}
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED) as error:
        if isinstance(error, OSError) and not is_listed:
            raise
        return {}
