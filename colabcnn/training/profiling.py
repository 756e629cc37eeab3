"""A trace of a few training steps, which shows where their time goes."""

from collections.abc import Callable
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.store.files import expand

SKIPPED_CALLS, TRACED_CALLS = 5, 10


class ProfileSteps(FitCallback):
    """Write a trace of ten calls of the compiled step into a folder, after five calls to warm up.

    The trace is shorter if the epoch ends earlier. TensorBoard's profile plugin opens it from `plugins/profile`; under
    JAX there is also a `perfetto_trace.json.gz` for https://ui.perfetto.dev.

    Args:
        folder: made if missing.
        info: callable that shows a message.

    Raises:
        Error: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, info: Callable[[str], None]):
        super().__init__()
        self._folder = expand(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Error(f"{self._folder} cannot be made ({error.strerror}); give another folder for it.") from None
        self._info = info
        self._calls = 0
        self._trace = None
        self._logs = None

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self._calls == SKIPPED_CALLS:
            trace = _trace(str(self._folder))
            trace.__enter__()
            self._trace = trace
        self._calls += 1

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._logs = logs
        if self._calls == SKIPPED_CALLS + TRACED_CALLS:
            self._end()

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._end()

    def close(self) -> None:
        """End the trace, if one is being taken; report if there was none."""
        self._end()
        if self._calls <= SKIPPED_CALLS:
            self._info(f"No trace: the first {SKIPPED_CALLS} calls are skipped, and there were only {self._calls}.")

    def _end(self):
        if self._trace:
            trace, self._trace = self._trace, None
            if self._logs:
                float(self._logs["loss"])  # The device may still compute; reading a result waits for it.
            trace.__exit__(None, None, None)
            self._info(f"A trace of {self._calls - SKIPPED_CALLS} calls is in {self._folder}.")


def _trace(folder):
    if devices.backend() == "jax":
        import jax

        return jax.profiler.trace(folder, create_perfetto_trace=True)
    import tensorflow as tf

    return tf.profiler.experimental.Profile(folder)
