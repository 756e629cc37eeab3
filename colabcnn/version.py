"""The library's version, and the commit of its code."""

import json
import re
import subprocess
from importlib import metadata
from pathlib import Path

__version__ = "0.2.0"
_ROOT = Path(__file__).resolve().parents[1]


def commit() -> str | None:
    """Return the commit of this code, 40 hexadecimal digits, or None if it is not known.

    A checkout's commit has "-dirty" behind it if files were changed. For an installed package it is the one that pip
    recorded when it installed from a repository.
    """
    if (_ROOT / ".git").exists():
        try:
            describe = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
            return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None
    try:
        installed = metadata.distribution("colabcnn")
        if Path(str(installed.locate_file("colabcnn"))).resolve() != Path(__file__).resolve().parent:
            return None
        # https://packaging.python.org/en/latest/specifications/direct-url/
        found = json.loads(installed.read_text("direct_url.json") or "{}")["vcs_info"]["commit_id"]
        return found if re.fullmatch("[0-9a-f]{40}", found) else None
    except (metadata.PackageNotFoundError, KeyError, TypeError, ValueError):
        return None
