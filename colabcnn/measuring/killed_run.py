"""A run that is ended in the middle, so that resuming it can be checked on the device at hand."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from colabcnn.drive.process import import_path
from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment
from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.run_folder import run_folder
from colabcnn.training.run import run

CHECKPOINT_SECONDS = 60
_START = "from colabcnn.measuring.killed_run import main; main()"


class _EndedError(Exception):
    """The run was ended, as asked for."""


class _InTheMiddle(FitCallback):
    """End a run in the middle of its second epoch, once the first one's checkpoint is on the disk.

    Args:
        run_dir: the run's folder.
        end: function that ends it.
    """

    def __init__(self, run_dir, end):
        super().__init__()
        self._checkpoints = run_folder(run_dir).checkpoints
        self._end = end
        self._second = False

    def on_epoch_begin(self, epoch, logs=None):
        self._second = epoch == 1

    def on_train_batch_begin(self, batch, logs=None):
        if self._second and 2 * batch >= (self.params["steps"] or 1):
            self._end_now()

    def on_test_begin(self, logs=None):
        if self._second:  # The whole epoch was one call.
            self._end_now()

    def _end_now(self):
        deadline = time.monotonic() + CHECKPOINT_SECONDS
        while not checkpoint_files(self._checkpoints) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._end()


def train_until_killed(experiment: Experiment, run_dir: str | Path, options: dict[str, Any], *, seconds: float) -> str:
    """Train in a process of its own that kills itself by SIGKILL in the middle of epoch 2.

    Args:
        experiment: `Experiment`.
        run_dir: the run's folder.
        options: of `run`, of types that JSON has.
        seconds: after so many the process is given up.

    Returns:
        "", or why there is no run that was killed so, as a sentence's part.
    """
    if _one_process_only():
        return "a TPU belongs to one process"
    request = json.dumps({"experiment": experiment.settings(), "run_dir": str(run_dir), "options": options})
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, request],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"the process did not come to epoch 2 in {seconds:.0f} s"
    except OSError as error:
        return f"no process could be started: {error.strerror}"
    if not checkpoint_files(run_folder(run_dir).checkpoints):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"the process ended with {done.returncode} and no checkpoint: {last[:200]}"
    return "" if done.returncode == -signal.SIGKILL else f"the process ended with {done.returncode}, not by SIGKILL"


def train_until_exception(experiment: Experiment, run_dir: str | Path, options: dict[str, Any]) -> None:
    """Train in this process until an exception in the middle of epoch 2 ends the run; arguments as above."""

    def end():
        raise _EndedError

    try:
        run(experiment, run_dir, callbacks=[_InTheMiddle(run_dir, end)], **options)
    except _EndedError:
        return
    raise Error(f"the run in {run_dir} was to be ended in epoch 2, and was not.")


def _one_process_only():
    if devices.backend() != "jax":
        return False
    import jax

    return jax.devices()[0].platform == "tpu"


def _environment():
    """Return the environment of a process that uses the device beside this one."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": devices.backend(),
        "PYTHONPATH": os.pathsep.join(import_path()),
        # This process may hold most of a GPU's memory; what is left is enough if it is not taken in advance.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if devices.backend() == "jax" and (cache := devices.compilations_folder()):
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    return environment


def main() -> None:
    """Train as the request says, until this process kills itself."""
    request = json.loads(sys.argv[1])
    run_dir = request["run_dir"]
    killing = _InTheMiddle(run_dir, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(Experiment.from_settings(request["experiment"]), run_dir, callbacks=[killing], **request["options"])
