"""Processes of our own that call `main` of one of our modules."""

import sys
from pathlib import Path

LIBRARY = str(Path(__file__).resolve().parents[1])
# It is this very library, also if another version is installed. The caller's folders and the library's come last: no
# module of the user's project replaces one of the standard library or an installed one.
_START = (
    "import importlib.util, sys; sys.path += sys.argv.pop(1).split(':'); "
    "spec = importlib.util.spec_from_file_location('colabcnn', sys.path[-1] + '/colabcnn/__init__.py'); "
    "sys.modules['colabcnn'] = library = importlib.util.module_from_spec(spec); spec.loader.exec_module(library); "
    "from colabcnn.{} import main; main()"
)
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Environment variables of a process that does not take all memory of a GPU at its start: others use it, too."""


def command_of(module: str, *arguments: object) -> list[str]:
    """Return the command that calls `main` of a module, such as "drive.process"; its arguments are in `sys.argv`."""
    folders = ":".join([*filter(None, sys.path), LIBRARY])
    return [sys.executable, "-I", "-c", _START.format(module), folders, *map(str, arguments)]
