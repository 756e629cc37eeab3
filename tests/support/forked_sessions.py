"""Sessions of a small run, from the side of the test."""

import json
import os
import subprocess
import sys
from pathlib import Path


class Sessions:
    """Sessions of a small run, each in a process that `sessions.py` forks, so that Keras is imported once."""

    def __init__(self, backend):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("sessions.py"))],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, run_dir, *, kill=None, altered_epoch=None, **options):
        """Start a session of `run` with these options; see `sessions.py`."""
        request = {"run": {"run_dir": str(run_dir), **options}, "kill": kill, "altered_epoch": altered_epoch}
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def finish(self):
        """Wait for the session's end; return its exit status and what it printed."""
        response = json.loads(self.process.stdout.readline())
        return response["status"], response["output"]

    def close(self):
        """End the process that forks."""
        self.process.communicate(timeout=60)

    def __call__(self, run_dir, *, ends=0, **options):
        """Run a session, check its exit status (negative for a signal), and return what it printed."""
        self.start(run_dir, **options)
        status, output = self.finish()
        assert status == ends, output
        return output
