"""The library's version."""

import tomllib
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def _version():
    """Return the version of this file's checkout, else of the installed package."""
    try:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        project = {}
    # Beside an installed package there may be another project's file.
    return project["version"] if project.get("name") == "colabcnn" else metadata.version("colabcnn")


__version__ = _version()
