"""`python -m colabcnn`, in a process that dies with the worker that started it."""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Run the command line: `sys.argv` has the parent's process id, then the arguments."""
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        # SIGKILL: after a worker's death the scheduler gives the run to another one at once. The signal comes when the
        # parent's thread ends, which waits for this process. `preexec_fn` could hang in a process with threads.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It has died before.
            os._exit(1)
    runpy.run_module("colabcnn", run_name="__main__", alter_sys=True)
