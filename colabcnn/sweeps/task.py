"""One run on a worker: it is trained by a process of its own, which the task starts and watches.

dask.distributed is imported only where a task runs: `cluster.py` reports a missing one.
"""

import contextlib
import errno
import math
import os
import signal
import subprocess
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from colabcnn.colab import seconds_since_start
from colabcnn.drive.process import DriveProcess
from colabcnn.errors import Error
from colabcnn.own_process import SHARED_GPU, command_of
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.experiment_file import ENDING, write_experiment
from colabcnn.store.lock import TRAINED_BY, Lock
from colabcnn.store.run_folder import RunFolder
from colabcnn.training.interruption import SECONDS
from colabcnn.training.request import RunRequest

WAITING, FINISHED, STOPPED, FAILED, ELSEWHERE = "waiting", "finished", "stopped", "failed", "trained elsewhere"
# Errors with which Drive fails for a time; a lost mount does not come back by itself.
_OUTAGE = (errno.EIO, errno.ETIMEDOUT)
# A worker's resource that a run takes completely: one run at a time, with any number of threads.
RUN = "colabcnn-run"
LOG = "train.log"
# A session delivers every ten minutes. Without three deliveries it counts as dead.
_IDLE_MINUTES, _IDLE_DELIVERIES = 30, 3
_POLL_SECONDS, _STOP_SECONDS = 1, SECONDS + 10


async def prepare(token: str, dask_worker: Any) -> bool:
    """Let this worker train one run at a time; return False, and do not, if it does not see the file `token`."""
    if os.path.exists(token):
        await dask_worker.set_resources(**{RUN: 1})
    return os.path.exists(token)


def check_availability(request: RunRequest, claim: str | None = None) -> tuple[str, str]:
    """Check whether a run can be trained now; with `claim`, claim it on Drive.

    Args:
        request: the run's.
        claim: identity of the session with which to claim a free run on Drive; None only checks.

    Returns:
        ELSEWHERE and who trains it, another process or another machine's session on Drive; WAITING and how Drive fails;
        WAITING and "" if it can be trained.
    """
    with contextlib.suppress(OSError):  # The process that trains reports it.
        try:
            Lock(request.run_dir).release()
        except Error as error:
            return ELSEWHERE, str(error)
    # Sessions on Drive send no heartbeat: this is the one place where a timer decides.
    idle_seconds = 60 * max(_IDLE_MINUTES, _IDLE_DELIVERIES * request.drive_minutes)
    response = _on_drive(request, "claim", identity=claim, idle_seconds=idle_seconds)
    if (active := response.get("active")) is not None:
        return ELSEWHERE, f"another session was active in {request.drive_folder} {active / 60:.0f} min ago"
    if response.get("errno") in _OUTAGE and not checkpoint_files(RunFolder(request.run_dir).checkpoints):
        return WAITING, f"{response['error']}; the run may be there"
    return WAITING, ""


def _on_drive(request, verb, **arguments):
    """Return the response of the process that reaches Drive, an error among them; an empty dict without Drive."""
    if request.drive_folder is None:
        return {}
    with contextlib.closing(DriveProcess(request.run_dir, request.drive_folder)) as drive:
        return drive.call(verb, **arguments)


def train(request: RunRequest, deadline: float, stop_event: str) -> tuple[str, str]:
    """Train a run to its end, or until the sweep stops.

    Args:
        request: `RunRequest`.
        deadline: `time.time()` at which the hours of the sweep have passed; infinite without hours.
        stop_event: name of the `distributed.Event` that stops the sweep.

    Returns:
        FINISHED, STOPPED, FAILED, ELSEWHERE or WAITING, and the reason.

    Raises:
        RuntimeError: the process crashed, and dask retries; or the worker has lost its scheduler.
    """
    from distributed import Event

    stop, seconds = Event(stop_event), deadline - time.time()
    if stop.is_set() or seconds <= 0:
        return STOPPED, ""
    try:
        RunFolder(request.run_dir).create()
    except Error as error:
        return FAILED, str(error)
    claim = uuid.uuid4().hex
    state, reason = check_availability(request, claim)
    if reason:
        return state, reason
    hours = None if math.isinf(seconds) else (seconds + seconds_since_start()) / 3600
    environment = {**SHARED_GPU, **os.environ}
    log_file = Path(request.run_dir, LOG)
    with tempfile.TemporaryDirectory() as folder, log_file.open("a+", encoding="utf-8", errors="replace") as log:
        settings, begin = Path(folder, f"experiment{ENDING}"), log.tell()
        write_experiment(settings, request.experiment)
        arguments = [settings, *replace(request, hours=hours).arguments()]
        command = command_of("sweeps.tied", os.getpid(), "train", *arguments, isolated=False)
        # A session of its own: Ctrl-C reaches only the sweep, which stops its runs in order.
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        process = subprocess.Popen(command, env=environment, **streams)
        try:
            stopped = _wait(process, stop)
        finally:
            process.kill()
            process.wait()
            _on_drive(request, "release", identity=claim)
        log.seek(begin)
        printed = [line.strip() for line in log if line.strip()] or ["it printed nothing"]
    return _outcome(request, process.returncode, stopped, printed)


def _wait(process, stop):
    """Wait for the process; return whether it was stopped, because the sweep stops or its client is gone."""
    from distributed import Status, get_worker

    worker, stopping_since = get_worker(), None
    key = worker.get_current_task()
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        if worker.status not in (Status.running, Status.paused):
            raise RuntimeError("the worker has lost its scheduler, which may give the run to another one")
        # dask cannot interrupt a running task, and only marks it.
        task = worker.state.tasks.get(key)
        if stopping_since is None and (task is None or task.state == "cancelled" or stop.is_set()):
            stopping_since = time.monotonic()
            process.terminate()
        elif stopping_since is not None and time.monotonic() - stopping_since > _STOP_SECONDS:
            process.kill()
    return stopping_since is not None


def _outcome(request, code, stopped, printed):
    undelivered = next((line for line in reversed(printed) if f" is not in {request.drive_folder} yet (" in line), "")
    if code == 0:
        return FINISHED, undelivered
    if stopped:
        return STOPPED, undelivered
    if code == 3:  # A newer session trains the run, or the hours have passed.
        state, reason = check_availability(request)
        return (ELSEWHERE, reason) if state == ELSEWHERE else (STOPPED, undelivered)
    if code == 2:
        # Another sweep's process that trains the run prints into the same file.
        error = next((line for line in reversed(printed) if line.startswith("colabcnn")), printed[-1])
        return (ELSEWHERE if TRAINED_BY in error else FAILED), error
    ended = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    raise RuntimeError(f"{printed[-1]} ({ended})")
