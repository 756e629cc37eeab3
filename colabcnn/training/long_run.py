"""Stop a run after its first steps if it would take days on a CPU."""

import statistics
import time

from colabcnn.errors import Error
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.store.run_record import RunRecord

LIMIT_HOURS = 40
MEASURED_SECONDS = 5
MEASURED_STEPS = 3
# The cost of a validation image, as a share of a training image's: it has no backward pass.
VALIDATION_SHARE = 1 / 3


class LongRunGuard(FitCallback):
    """Measure the first steps, and raise `Error` if the rest of the run would take more than `LIMIT_HOURS`.

    The message reports what would fit. A step's time is the time from the end of the step before to its own end. So
    the first step, which holds the compilation, is not measured; an epoch's last step is not, either. (Epochs of one
    or two steps are never measured.)

    Args:
        record: `RunRecord`.
        hours: the length of one session, or None.
    """

    def __init__(self, record: RunRecord, hours: float | None):
        super().__init__()
        self._record = record
        self._hours = hours or LIMIT_HOURS
        self._first_epoch = -1
        self._last_step_end = None
        self._seconds: list[float] = []
        self._decided = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._first_epoch = epoch if self._first_epoch < 0 else self._first_epoch
        self._last_step_end = None

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        if self._decided or batch + 1 == self.params["steps"]:  # An epoch's last step may have fewer images.
            return
        float(logs["loss"])  # JAX returns before it has computed; reading a result waits for it.
        now = time.monotonic()
        if self._last_step_end is not None:
            self._seconds.append(now - self._last_step_end)
        self._last_step_end = now
        if len(self._seconds) >= MEASURED_STEPS and sum(self._seconds) >= MEASURED_SECONDS:
            self._decided = True
            self._decide(statistics.mean(self._seconds))

    def _decide(self, step_seconds):
        record, batch_size = self._record, self._record.experiment.batch_size
        images = record.train_size + record.val_size * VALIDATION_SHARE
        epoch_seconds = step_seconds * images / batch_size
        epochs_left = record.experiment.epochs - self._first_epoch
        total_hours = epochs_left * epoch_seconds / 3600
        if total_hours <= LIMIT_HOURS:
            return
        hours = self._hours if self._hours < total_hours else LIMIT_HOURS
        epochs = self._first_epoch + int(hours * 3600 / epoch_seconds)
        size = int(images * hours / total_hours - record.val_size * VALIDATION_SHARE) // 100 * 100
        resumed, fitting = self._first_epoch > 0, {}
        # A resumed run keeps its images and, if its learning rate depends on them, its epochs.
        if epochs > self._first_epoch and (not resumed or record.experiment.is_extendable):
            fitting["epochs"] = epochs
        if not resumed and size >= batch_size:
            fitting["train_size"] = size
        smaller = " or ".join(f"{name}={value}" for name, value in fitting.items())
        advice = f"{smaller} would fit into {hours:g} hours; " if fitting else ""
        raise Error(
            f"there is no GPU, and at {epoch_seconds:.0f} s an epoch the {epochs_left} epochs left would take "
            f"{total_hours:.0f} hours; {advice}allow_long=True trains all of them.",
            "too_long",
            **fitting,
        )
