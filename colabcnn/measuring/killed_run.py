"""A run that is ended in the middle of an epoch, to check on this device that it resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment
from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback
from colabcnn.own_process import SHARED_GPU, command_of
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.run_folder import RunFolder
from colabcnn.training.run import run

CHECKPOINT_SECONDS = 60


class _EndedError(Exception):
    """The run was ended on purpose."""


class _EndInEpoch2(FitCallback):
    """End a run in the middle of its second epoch, once the first one's checkpoint is on the disk.

    Args:
        run_dir: the run's folder.
        end: function that ends the run.
    """

    def __init__(self, run_dir, end):
        super().__init__()
        self._checkpoints = RunFolder(run_dir).checkpoints
        self._end = end
        self._second = False

    def on_epoch_begin(self, epoch, logs=None):
        self._second = epoch == 1

    def on_train_batch_begin(self, batch, logs=None):
        if self._second and 2 * batch >= (self.params["steps"] or 1):
            self._end_now()

    def on_test_begin(self, logs=None):
        if self._second:  # One call made the complete epoch.
            self._end_now()

    def _end_now(self):
        deadline = time.monotonic() + CHECKPOINT_SECONDS
        while not checkpoint_files(self._checkpoints) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._end()


def train_until_killed(experiment: Experiment, run_dir: str | Path, options: dict[str, Any], *, seconds: float) -> str:
    """Train in a separate process that kills itself by SIGKILL in the middle of epoch 2.

    Args:
        experiment: `Experiment`.
        run_dir: the run's folder.
        options: of `run`, as JSON types.
        seconds: timeout of the process.

    Returns:
        "", or the reason why this failed, as part of a sentence.
    """
    if devices.is_tpu():
        return "only one process can use a TPU"
    request = json.dumps({"experiment": experiment.settings(), "run_dir": str(run_dir), "options": options})
    try:
        done = subprocess.run(
            command_of("measuring.killed_run", request),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"the process did not reach epoch 2 in {seconds:.0f} s"
    except OSError as error:
        return f"no process could be started: {error.strerror}"
    if not checkpoint_files(RunFolder(run_dir).checkpoints):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the process ended with {done.returncode} and no checkpoint: {last[:200]}"
    return "" if done.returncode == -signal.SIGKILL else f"the process ended with {done.returncode}, not by SIGKILL"


def train_until_exception(experiment: Experiment, run_dir: str | Path, options: dict[str, Any]) -> None:
    """Train in this process until an exception ends the run in the middle of epoch 2; arguments as above."""

    def end():
        raise _EndedError

    try:
        run(experiment, run_dir, callbacks=[_EndInEpoch2(run_dir, end)], **options)
    except _EndedError:
        return
    raise Error(f"the run in {run_dir} was not interrupted; expected an exception in epoch 2.")


def _environment():
    """Return the environment of a second process on the same device."""
    environment = {**os.environ, **SHARED_GPU, "KERAS_BACKEND": devices.backend()}
    if devices.backend() == "jax" and (cache := devices.compilations_folder()):
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    return environment


def main() -> None:
    """Train with the options of the request, until this process kills itself."""
    request = json.loads(sys.argv[1])
    run_dir = request["run_dir"]
    callback = _EndInEpoch2(run_dir, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(Experiment.from_settings(request["experiment"]), run_dir, callbacks=[callback], **request["options"])
