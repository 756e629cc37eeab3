"""The library's version."""

import tomllib
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def _version():
    """Return the version: of the checkout that this file lies in, else of the installed package."""
    try:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        project = {}
    # Beside an installed package any other project's file may lie.
    return project["version"] if project.get("name") == "colabcnn" else metadata.version("colabcnn")


__version__ = _version()
