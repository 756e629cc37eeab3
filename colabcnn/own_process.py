"""Processes of our own: the command that calls `main` of one of our modules, and their end."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

LIBRARY = str(Path(__file__).resolve().parents[1])
# It is this very library, also if another version is installed. The folders in the first argument come last.
_START = (
    "import importlib.util, json, sys; sys.path += json.loads(sys.argv.pop(1)); "
    "spec = importlib.util.spec_from_file_location('colabcnn', sys.path[-1] + '/colabcnn/__init__.py'); "
    "sys.modules['colabcnn'] = library = importlib.util.module_from_spec(spec); spec.loader.exec_module(library); "
    "from colabcnn.{} import main; main()"
)
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Environment variables of a process that does not take all memory of a GPU at its start: others use it, too."""

# Python warns of a process that still runs when its `Popen` is deleted.
_abandoned: list[subprocess.Popen] = []


def command_of(module: str, *arguments: object, isolated: bool = True) -> list[str]:
    """Return the command that calls `main` of a module, such as "drive.process"; its arguments are in `sys.argv`.

    Args:
        module: its name within the library.
        arguments: the process's.
        isolated: no module of the user's project replaces an installed one: the caller's folders and those of
            PYTHONPATH come last. Otherwise packages are found as in the caller, except in the current folder and in
            folders that the caller has added.
    """
    folders = [folder for folder in sys.path if isolated and folder and isinstance(folder, str)]
    python = [sys.executable, "-I" if isolated else "-P", "-c", _START.format(module)]
    return [*python, json.dumps([*folders, LIBRARY]), *map(str, arguments)]


def abandon(process: subprocess.Popen) -> None:
    """Wait a second for a process to end; leave one that hangs in a call to Drive until the call returns."""
    _abandoned.append(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    _abandoned[:] = [abandoned for abandoned in _abandoned if abandoned.poll() is None]
