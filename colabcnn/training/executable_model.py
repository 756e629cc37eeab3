"""The model that a run trains, compiled in the way that this device can execute."""

from __future__ import annotations

import gc
import math
import re
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from colabcnn.data.split import Split
from colabcnn.errors import cause_of
from colabcnn.experiments.execution import Execution
from colabcnn.experiments.experiment import Experiment
from colabcnn.network import devices
from colabcnn.network.model import build_model
from colabcnn.network.optimizers import make_loss, make_optimizer
from colabcnn.network.training_model import VALIDATION_BATCH_SIZE, PlanEpoch, TrainingModel, in_batches
from colabcnn.network.variables import assign_arrays, read_arrays
from colabcnn.store.run_record import RunRecord, Start

if TYPE_CHECKING:
    from colabcnn.training.session import Session

_LACKS_MEMORY = re.compile(r"resource_?exhausted|out.of.memory|\bOOM\b|allocate memory|ALLOC_FAILED", re.IGNORECASE)


def executable_model(session: Session, split: Split) -> TrainingModel:
    """Return the compiled model.

    Its execution is that of the run's last start on this device, else the one that suits the device, else plain steps
    if that one fails. A GPU may refuse the compiled step, or lack the memory for it, with errors that nobody has seen.
    A run matters more than its speed.
    """
    record = session.record
    execution, refused = execution_of(record.starts, session.progress.info)
    model_of = {"experiment": record.experiment, "split": split, "seed": record.seed, "precision": record.precision}
    model = compiled_model(**model_of, execution=execution)
    if execution.steps_per_call > 1:
        session.progress.info(f"Compiles and tries out {execution.in_words()}; this may take minutes, at each start.")
        # For the next start, if this process ends here.
        session.write_start(refused=f"{execution.in_words()}: the process ended while it was tried out")
        try:
            try_out(model, record)
        except KeyboardInterrupt:
            session.write_start(refused=None)
            raise
        except Exception as error:
            refused = _report_refusal(session, error, execution.in_words())
            model = None
    session.write_start(refused=refused)
    if model is None:
        gc.collect()  # The device's memory may be full; until now the error held what was on it.
        execution = devices.plain_execution()
        model = compiled_model(**model_of, execution=execution)
    session.write_start(execution=execution)
    return model


def _report_refusal(session, error, refused):
    """Report in a line that training uses plain steps, and keep the complete traceback in the run's folder."""
    path = session.folder.path / "refused-execution.txt"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    reason = cause_of(error)[:200]
    session.progress.info(
        f"{refused} failed on this device ({reason}); training continues with one plain step a "
        f"call. The complete error is in {path}."
    )
    return f"{refused}: {reason}"


def execution_of(starts: Sequence[Start], info: Callable[[str], None]) -> tuple[Execution, str | None]:
    """Return the run's last `Execution` on this device and backend, else the one that suits the device.

    An execution that failed is tried again with other versions, or if the device lacked memory. One whose trial ended
    the process is tried once more, since the runtime may have been killed.

    Args:
        starts: the run's; the last one is this one.
        info: callable that shows a message.

    Returns:
        The execution; and the one that failed before, with the reason, or None.
    """
    now, suitable, ended = starts[-1], devices.auto_execution(), 0
    for start in reversed(starts[:-1]):
        if (start.device, start.backend) != (now.device, now.backend) or not (start.execution or start.refused):
            continue
        if start.refused:
            if (start.versions, start.commit) != (now.versions, now.commit):
                break
            ended += start.execution is None
            if (ended == 1 and start.execution is None) or _LACKS_MEMORY.search(start.refused):
                continue
        kept = start.execution or devices.plain_execution()
        if kept != suitable:
            reason = f" It failed before: {start.refused}." if start.refused else ""
            info(f"The run keeps its execution on this device: {kept.in_words()}.{reason}")
        return kept, start.refused
    return suitable, None


def compiled_model(
    experiment: Experiment, split: Split, *, seed: int, precision: str, execution: Execution
) -> TrainingModel:
    """Return the `TrainingModel`, compiled, with its state built."""
    network = build_model(experiment, seed=seed, precision=precision)
    model = TrainingModel(network, split, experiment, execution)
    steps_per_epoch = math.ceil(len(split.train_labels) / experiment.batch_size)
    model.compile(
        make_optimizer(experiment, steps_per_epoch=steps_per_epoch, precision=precision),
        loss=make_loss(experiment),
        metrics=["accuracy"],
        steps_per_execution=model.batches_per_call,
        jit_compile=execution.xla,  # pyright: ignore[reportArgumentType]  # Its default is "auto", a text.
    )
    model.build_state()
    return model


def fit_options(model: TrainingModel, train_size: int, val_size: int) -> dict:
    """Return the arguments for `fit` of a `TrainingModel`, for these numbers of images."""
    validation = in_batches(np.arange(val_size), batch_size=VALIDATION_BATCH_SIZE * model.steps_per_batch)
    return {
        **in_batches(np.arange(train_size), batch_size=model.batch_size * model.steps_per_batch),
        # `fit` expects arrays in a tuple, but a dataset alone.
        "validation_data": (validation["x"],) if "batch_size" in validation else validation["x"],
        "validation_batch_size": validation.get("batch_size"),
        "shuffle": False,  # The plan is the order.
        "verbose": 0,
    }


def try_out(model: TrainingModel, record: RunRecord) -> None:
    """Compile the calls of a run by making one of each shape; restore the state.

    Args:
        model: `TrainingModel`, compiled, with its state built.
        record: the run's.

    Raises:
        Exception: any error of the device. The model must not be used any more.
    """

    def full_and_rest(size, batch_size):
        full = batch_size * model.execution.steps_per_call
        return min(size, full + size % full)

    sizes = full_and_rest(record.train_size, model.batch_size), full_and_rest(record.val_size, VALIDATION_BATCH_SIZE)
    plan = PlanEpoch(record.experiment, record.seed, record.train_size)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = read_arrays(variables)
    model.fit(**fit_options(model, *sizes), epochs=1, callbacks=[plan])
    assign_arrays(variables, before, "variables")
