"""The workers of a sweep: threads of this process, or those of a scheduler that runs already."""

import contextlib
import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colabcnn.errors import Error
from colabcnn.sweeps.task import prepare

_ANSWER_SECONDS = 10
# dask gives each of these a level of its own.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc")


@contextlib.contextmanager
def connect(scheduler: str | None, jobs: int) -> Iterator[Any]:
    """Return a context with a `distributed.Client`.

    Args:
        scheduler: the address of a scheduler; None starts one here.
        jobs: number of workers, if they are started here.

    Raises:
        Error: dask.distributed is missing; the scheduler does not answer.
    """
    try:
        import dask.config
        from distributed import Client, LocalCluster
    except ImportError:
        raise Error("a sweep needs dask.distributed, which is not here; install it: pip install distributed") from None
    # Each run has a process, so a worker needs none: a script needs no guard, and nothing is imported again.
    here = {"n_workers": jobs, "threads_per_worker": 1, "processes": False, "memory_limit": 0}
    # The scheduler opens a port for its pages in any case: one that is free, and for this machine alone.
    here |= {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with contextlib.ExitStack() as stack:
        for logger in map(logging.getLogger, _LOGGERS):  # The sweep reports in its own words what is lost.
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        # Looking at the workers' threads a hundred times a second would slow the runs.
        stack.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
        with warnings.catch_warnings(action="ignore"):  # dask's own, such as of a slow disk.
            address = scheduler or stack.enter_context(LocalCluster(**here))
        try:
            client = Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
        except (OSError, TypeError, ValueError) as error:
            raise Error(
                f"the scheduler {scheduler} does not answer within {_ANSWER_SECONDS} s ({error}); expected the address "
                "that `dask scheduler` prints, such as tcp://127.0.0.1:8786."
            ) from None
        yield stack.enter_context(client)


class Workers:
    """The workers that may train: those with the library and with the runs' folder.

    Args:
        client: `distributed.Client`.
        root: the runs' folder.
        info: callable that shows a message.
    """

    def __init__(self, client: Any, root: Path, info: Callable[[str], None]):
        self._client, self._root, self._info = client, root, info
        self._admitted, self._refused = set(), set()

    def wait(self) -> int:
        """Wait for the first workers, and return how many may train.

        Raises:
            Error: none has come, or one that cannot train.
        """
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not (count := self.admit()):
            if self._refused or time.monotonic() > deadline:
                start = f"start one: dask worker {self._client.scheduler.address}"
                raise Error(f"there is no worker that can train; {start}")
            time.sleep(0.2)
        return count

    def admit(self) -> int:
        """Admit new workers, each for one run at a time, and report those that cannot train; return how many may."""
        present = set(self._client.nthreads())
        if new := sorted(present - self._admitted - self._refused):
            token = self._root / f".sweep-{uuid.uuid4().hex}"
            token.touch()  # A folder of the same name on another disk does not have it.
            try:
                answers = self._client.run(prepare, str(token), workers=new, on_error="return")
            finally:
                token.unlink()
            self._admitted |= {address for address, answer in answers.items() if answer is True}
            for address in answers.keys() - self._admitted:  # A worker that has left has no answer.
                self._refused.add(address)
                self._info(f"The worker {address} {_reason(answers[address], self._root)}")
        return len(present & self._admitted)


def _reason(answer, root):
    if answer is False:
        return f"does not see the files in {root}; expected storage that all machines share."
    return f"cannot load colabcnn.sweeps ({answer}); install this colabcnn there, then start it again."
