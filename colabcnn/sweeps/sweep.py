"""`sweep`: many runs, each in its folder; the same call again continues what is unfinished."""

import contextlib
import math
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabcnn.colab import seconds_since_start
from colabcnn.errors import Error, Interrupted
from colabcnn.experiments.checks import check_count, check_kind, parse_seeds
from colabcnn.experiments.experiment import Experiment
from colabcnn.store.checkpoint_files import TEST_JSON
from colabcnn.store.experiment_file import read_experiment
from colabcnn.store.files import expand, is_same_folder
from colabcnn.store.history import newest_in_words
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_record import DATA_NAMES
from colabcnn.sweeps.cluster import Workers, connect
from colabcnn.sweeps.task import (
    ELSEWHERE,
    FAILED,
    FINISHED,
    LOG,
    RUN,
    STOPPED,
    WAITING,
    check_availability,
    train,
)
from colabcnn.training import resume
from colabcnn.training.interruption import SECONDS, Interruption
from colabcnn.training.progress import ProgressLine
from colabcnn.training.request import HELP, OF_ONE_RUN, RunRequest

TRAINING = "training"
_POLL_SECONDS, _SHOW_SECONDS, _ADMIT_SECONDS, _CHECK_AGAIN_SECONDS = 0.2, 2, 2, 10


@dataclass
class _Run:
    """A run, and what is known about it here; without details the history has them."""

    request: RunRequest
    epochs: int  # The run's own number, if the request leaves it open.
    state: str = WAITING
    details: str = ""
    future: Any = None  # Of its task.
    check_at: float = 0.0  # `time.monotonic()` from which on a run that is not trained is checked again.

    @property
    def name(self):
        return "/".join(Path(self.request.run_dir).parts[-2:])

    @property
    def line(self):
        history = RunFolder(self.request.run_dir).read_history()
        return self.state, self.details or newest_in_words(history, max(self.epochs, len(history["epoch"])))

    @property
    def failure(self):
        """Why it failed, and the file with all that its process printed, if there was one."""
        log = Path(self.request.run_dir, LOG)
        return f"{self.name}: {self.details}" + (f" ({log})" if log.exists() else "")


def sweep(
    experiments: Experiment | str | Iterable[Experiment | str],
    *,
    seeds: str | int | Iterable[int],
    root: str | Path,
    drive: str | Path | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    retries: int = 2,
    dry_run: bool = False,
    **options: Any,
) -> dict[Path, str]:
    """Train experiments with several seeds in `root/<name>/seed-<n>`; called again, continue what is unfinished.

    Each run is trained by a process of its own, with its output in `train.log` in the run's folder. A run that another
    process or another machine trains is skipped until the other runs have ended.

    Args:
        experiments: one or several: `Experiment`, a name, or a `.json` file with settings.
        seeds: "A:B" for A to B - 1, one seed, or several.
        root: the folder of all runs; made if missing. With a scheduler, on storage that all its workers share.
        drive: folder such as one on Google Drive: the runs are delivered to `drive/<name>/seed-<n>`.
        jobs: how many runs this machine trains at a time; on its one GPU if it has one.
        scheduler: address of a dask scheduler, whose workers train one run each at a time; instead of `jobs`.
        retries: how often a run is started again whose process crashed.
        dry_run: only show what each run would do.
        **options: those of `run`, except those of a single run, such as `seed`; `hours` limits the sweep.

    Returns:
        A dict from each run's folder to "finished", or "stopped" if the hours have passed; for a dry run, to
        "finished" or "waiting".

    Raises:
        Error: bad arguments; no scheduler, no worker; at the end, if a run failed.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the current epochs have ended if that takes 15 seconds at most;
            a second one stops at once. The same call continues the runs.
    """
    check_count("jobs", jobs)
    check_count("retries", retries, 0)
    if scheduler is not None and jobs != 1:
        raise Error(f"jobs is {jobs}, but a scheduler trains as many runs at a time as it has workers: leave jobs out.")
    check_kind("quiet", quiet := options.pop("quiet", False), bool)
    root, progress = expand(root).absolute(), ProgressLine(quiet)
    if root.exists() and not root.is_dir():
        raise Error(f"{root} is a file; expected the folder of all runs, or a name that is not taken.")
    if drive is not None and is_same_folder(root, expand(drive)):
        raise Error(f"drive and root are both {drive}; expected a root on the local disk.")
    runs = _plan(experiments, parse_seeds(seeds), root, drive, options, progress.info)
    if dry_run or all(run.state != WAITING for run in runs):
        progress.update_lines({run.name: _would(run) if dry_run else run.line for run in runs}, last=True)
    else:
        with Interruption(progress.info) as interruption, connect(scheduler, jobs) as client:
            interruption.allow(lambda: 0.0)
            RunFolder(root).create()
            loop = _Loop(client, runs, Workers(client, root, progress.info), progress)
            loop.train(interruption, retries)
    if failed := [run for run in runs if run.state == FAILED]:
        words = "would fail" if dry_run else "failed"
        raise Error(f"{len(failed)} of {len(runs)} runs {words}. {' '.join(run.failure for run in failed)}")
    return {Path(run.request.run_dir): run.state for run in runs}


def _plan(experiments, seeds, root, drive, options, info):
    """Return the runs, after all arguments are checked; changes no file. `info` shows a message."""
    if unknown := set(options) - set(HELP) | set(options) & set(OF_ONE_RUN):
        raise Error(f"{', '.join(sorted(unknown))} is no option of a sweep; see help(colabcnn.sweep).")
    if options.get("data", DATA_NAMES[0]) not in DATA_NAMES:
        options = {**options, "data": expand(options["data"]).absolute()}  # A worker may run in another folder.
    several = experiments if isinstance(experiments, Iterable) and not isinstance(experiments, str) else [experiments]
    runs = {}
    for experiment, seed in ((read_experiment(one), seed) for one in several for seed in seeds):
        place = Path(experiment.name, f"seed-{seed}")
        folder = None if drive is None else expand(drive).absolute() / place
        if place in runs and runs[place].request.experiment != experiment:
            raise Error(f"two experiments are named {experiment.name!r}; give each a name of its own.")
        request = RunRequest(experiment, root / place, folder, seed=seed, **options)
        run = runs[place] = _Run(request, request.epochs or experiment.epochs)
        messages = []
        try:
            found = resume.find(request, RunFolder(root / place), None, messages.append)
            run.epochs = found.experiment.epochs
            # Otherwise the run's process writes or delivers what is missing.
            written = (path.exists() for path in found.folder.small_files if path.name != TEST_JSON)
            if found.is_finished and folder is None and all(written):
                run.state = FINISHED
        except (Error, OSError) as error:
            run.state, run.details = FAILED, str(error)
        for message in messages:
            info(f"{run.name}: {message}")
    return list(runs.values())


def _would(run):
    """Return what a dry run shows of a run."""
    state, details = run.line
    words = {FINISHED: FINISHED, FAILED: "would fail"}
    would = "would start, or continue from Drive" if run.request.drive_folder else "would start"
    return words.get(state, "would continue" if details else would), details


class _Loop:
    """Give the runs to the workers, one each, and take in what became of them."""

    def __init__(self, client: Any, runs: list[_Run], workers: Workers, progress: ProgressLine):
        from distributed import Event

        self._client, self._runs, self._workers, self._progress = client, runs, workers, progress
        self._shown_at = -math.inf
        self._stop = Event(f"colabcnn-sweep-{uuid.uuid4().hex}", client=client)

    def train(self, interruption: Interruption, retries: int) -> None:
        """Train all runs; raise `Interrupted` after an interruption."""
        hours, now = self._runs[0].request.hours, time.monotonic()
        end = math.inf if hours is None else now + hours * 3600 - seconds_since_start()
        # A worker on another machine has another monotonic clock.
        arguments = (time.time() + end - now, self._stop.name)
        try:
            count, admit_at = self._workers.wait(), time.monotonic() + _ADMIT_SECONDS
            while any(run.future or run.state in (WAITING, ELSEWHERE) for run in self._runs):
                if interruption.at is not None or time.monotonic() > end:
                    interrupted = interruption.at is not None
                    self._stop_runs(
                        interruption.at if interrupted else end, "" if interrupted else "the hours have passed"
                    )
                elif time.monotonic() >= admit_at:
                    count, admit_at = self._workers.admit(), time.monotonic() + _ADMIT_SECONDS
                self._submit(count, retries, arguments)
                self._show_and_take_results()
            self._show_and_take_results(last=True)
        except KeyboardInterrupt:
            raise Interrupted from None
        except Exception as error:
            # dask may see a lost connection before its client does; an error of the disk has a number.
            if self._client.status == "running" and (not isinstance(error, OSError) or error.errno is not None):
                raise
            raise Error(
                "the scheduler is gone; start it and its workers again, then give the same command: every run "
                "continues from its newest checkpoint."
            ) from None
        finally:
            self._progress.end()
            with contextlib.suppress(Exception):  # A client that dask has closed raises errors of several types.
                self._client.cancel([run.future for run in self._runs if run.future])
                self._stop.clear()
        if interruption.at is not None:
            raise Interrupted

    def _show_and_take_results(self, last=False):
        if last or time.monotonic() - self._shown_at >= _SHOW_SECONDS:  # It reads all histories.
            self._progress.update_lines({run.name: run.line for run in self._runs}, last=last)
            self._shown_at = time.monotonic()
        time.sleep(0 if last else _POLL_SECONDS)
        if self._client.status != "running":
            raise ConnectionError
        for run in self._runs:
            if run.future and run.future.done():
                run.state, run.details = _result(run)
                run.future, run.check_at = None, time.monotonic() + (_CHECK_AGAIN_SECONDS if run.details else 0)

    def _submit(self, count, retries, arguments):
        """Give as many runs as there are free workers: a worker's death counts against every task that it holds."""
        free = max(0, count - sum(run.future is not None for run in self._runs))
        waiting = [run for run in self._runs if run.state == WAITING and time.monotonic() >= run.check_at]
        # Not pure: the same arguments train again.
        options = {"pure": False, "resources": {RUN: 1}}
        for run in waiting[:free]:
            run.state, run.details = TRAINING, ""
            run.future = self._client.submit(train, run.request, *arguments, retries=retries, **options)
        for run in self._runs if len(waiting) < free else ():
            if run.state == ELSEWHERE and run.future is None and time.monotonic() >= run.check_at:
                run.future = self._client.submit(check_availability, run.request, **options)

    def _stop_runs(self, at, why):
        """Stop all runs in order; those that do not stop in time are cancelled, which their tasks notice."""
        self._stop.set()
        late = time.monotonic() - at > SECONDS + 20
        for run in self._runs:
            if run.state in (WAITING, ELSEWHERE) or (late and run.future):
                run.state, run.details = STOPPED, why
                if run.future:
                    self._client.cancel(run.future)
                    run.future = None


def _result(run):
    """Return the state and its details that the end of a run's task gives."""
    from distributed.scheduler import KilledWorker

    if run.future.cancelled():  # The scheduler has started again and knows nothing of it.
        return WAITING, ""
    try:
        return run.future.result()
    except KilledWorker:
        return FAILED, "its worker died several times"
    except Exception as error:
        return FAILED, str(error)
