"""`measure`: the speed of 06_final on this device, a comparison with plain steps, and a check that a run resumes."""

import contextlib
import datetime
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from colabcnn import output
from colabcnn.colab import in_colab
from colabcnn.data.split import data_name, load_split
from colabcnn.errors import Interrupted
from colabcnn.experiments.catalog import ABLATIONS
from colabcnn.experiments.checks import check_count, check_kind, check_number, check_text
from colabcnn.experiments.experiment import TEST_SIZE, TRAIN_SIZE
from colabcnn.measuring.trials import Setting, as_line, last_record, train, train_interrupted, train_plain
from colabcnn.network import devices
from colabcnn.network.arithmetic import gflop_an_image, matrix_gflops, peak_memory, reset_peak_memory
from colabcnn.store.files import expand
from colabcnn.store.measurements import Measurement, read_measurement, write_measurement
from colabcnn.store.run_folder import RunFolder
from colabcnn.training.progress import ProgressLine
from colabcnn.version import commit
from colabcnn.viewing.measurement_table import in_words

EXPERIMENT = ABLATIONS["06_final"]
EPOCHS, LEAST_EPOCHS = 3, 2
# A trial of `TRIAL_STEPS` measures the device's speed; an epoch has at least `LEAST_STEPS`.
TRIAL_STEPS, LEAST_STEPS = 4, 8
# All training, in epochs of `auto`: `auto`, plain steps at half its speed, a run to its interruption, and its resume.
EPOCHS_IN_ALL = EPOCHS + 2 * EPOCHS + 1.5 + (EPOCHS - 1)
# The starts that compile: under TensorFlow all of them, under JAX those with a new program.
STARTS = {"tensorflow": 4, "jax": 2}
# Training is planned for this share of the time; the rest is a reserve.
SHARE_OF_TIME = 0.8


def measure(
    folder: str | Path = "measured",
    *,
    data: str | Path = "cifar10",
    train_size: int = TRAIN_SIZE,
    val_size: int = TEST_SIZE,
    minutes: float = 10,
    sent_by: str = "",
    quiet: bool = False,
) -> Path:
    """Measure training on this device and write a small file for the project's `results/measured/`.

    It trains three epochs of `06_final` with the execution that `run` chooses, and three in plain steps; it interrupts
    a run and resumes it; and it measures a large matrix product. On a slow device it takes fewer images, and on a very
    slow one two epochs.

    Args:
        folder: for the file; made if missing.
        data: as for `run`.
        train_size: largest number of training images, 50,000 at most.
        val_size: number of validation images, 10,000 at most; with fewer training images it is reduced in proportion.
        minutes: time limit, 600 at most. A device that is very slow or compiles for minutes exceeds it: an
            epoch has at least eight steps, and training gets a tenth of the time that is left.
        sent_by: a name for the credits, of 60 printable characters at most, or "".
        quiet: print nothing.

    Returns:
        The file's path, for `offer_measurement`.

    Raises:
        Error: bad arguments; a folder that cannot be written; data that cannot be loaded.
    """
    check_count("train_size", train_size, 1, TRAIN_SIZE)
    check_count("val_size", val_size, 1, TEST_SIZE)
    check_number("minutes", minutes, 1e-9, 600, "a number above 0 and up to 600")
    sent_by = _in_one_line(sent_by)
    start, progress = time.monotonic(), ProgressLine(quiet)
    RunFolder(expand(folder)).create()
    # If TensorFlow has not used the GPU yet, it must leave memory for the second process, which is killed below.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    folder_of_runs = tempfile.TemporaryDirectory(prefix="colabcnn-measure-")
    with _one_line_if_stopped(), folder_of_runs as work, _separate_compilations(work):
        setting = Setting(EXPERIMENT, str(data), train_size, val_size, EPOCHS, Path(work), progress)
        setting = _fit_to_time(setting, start + minutes * 60)
        reset_peak_memory()
        progress.info(f"1 of 4: {setting.experiment.name}, executed as suits this device. It compiles first.")
        auto = train(setting, "auto")
        memory, memory_of = peak_memory()
        progress.info("2 of 4: the same in plain steps. They should compute the same.")
        plain, plain_failed = train_plain(setting)
        progress.info("3 of 4: a run that is interrupted in the middle and resumed.")
        resumed, interruption = train_interrupted(setting, auto)
        progress.info("4 of 4: a large matrix product.")
        precision = last_record(setting, "auto").precision
        measurement = Measurement(
            sent_by=sent_by,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            device=as_line(devices.device_name(), 120),
            platform=as_line(platform.platform(), 200),
            backend=devices.backend(),
            versions=devices.versions(),
            commit=commit() or "",
            experiment=setting.experiment.name,
            data=data_name(data),
            train_size=setting.train_size,
            val_size=setting.val_size,
            precision=precision,
            peak_memory=memory,
            memory_of=memory_of,
            gflop_an_image=gflop_an_image(setting.experiment),
            matrix_gflops=round(matrix_gflops(precision), 3),
            minutes=round((time.monotonic() - start) / 60, 2),
            auto=auto,
            plain=plain,
            plain_failed=plain_failed,
            resumed=resumed,
            interruption=interruption,
        )
        progress.end()
    path = write_measurement(expand(folder), measurement)
    read_measurement(path)  # An unreadable file must fail here, not at its receiver.
    return path


def offer_measurement(path: str | Path) -> None:
    """Print the paragraph that goes with a measured file and, in Colab, offer the file for download.

    Args:
        path: as `measure` returns it.

    Raises:
        Error: it is not such a file.
    """
    output.write(f"{in_words(read_measurement(path))}\n")
    output.write(f"Send this paragraph and the file {path}. The project keeps such files in results/measured.")
    if in_colab() and output.in_notebook():
        output.write("The browser downloads the file; it is in the Files pane, too (the folder symbol on the left).")
        with contextlib.suppress(Exception):  # A browser that allows no download still has the Files pane.
            from google.colab import files  # pyright: ignore[reportMissingImports]  # Only Colab has it.

            files.download(str(path))


def _in_one_line(sent_by):
    check_kind("sent_by", sent_by, str)
    sent_by = " ".join(sent_by.split())  # A Japanese keyboard writes a wide space.
    check_text("sent_by", sent_by, 60)
    return sent_by


@contextlib.contextmanager
def _one_line_if_stopped():
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("the measurement was stopped; the same call starts it again.") from None


@contextlib.contextmanager
def _separate_compilations(folder):
    """Let JAX compile again, unless a cache folder is set: cached compilations would hide their time."""
    if devices.backend() != "jax" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    previous = devices.compilations_folder()
    try:
        jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "jax"))
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", previous)
        compilation_cache.reset_cache()


def _fit_to_time(setting, deadline):
    """Return the setting with the images and epochs that fit before the deadline, after a trial of a few steps."""
    load_split(setting.data, train_size=setting.train_size, val_size=setting.val_size)  # No start includes a download.
    batch_size = setting.experiment.batch_size
    if setting.train_size <= LEAST_STEPS * batch_size:
        return setting
    setting.progress.info(f"A trial of {TRIAL_STEPS} steps measures this device's speed.")
    # With a smaller last batch where the epochs may have one: its step is compiled, too.
    trial_setting = _with_images(setting, TRIAL_STEPS * batch_size + setting.train_size % batch_size)
    trial = train(replace(trial_setting, epochs=2), "trial")
    image_seconds = trial.epoch_seconds() / trial_setting.train_size
    left = deadline - time.monotonic()
    # A fast device that compiles for minutes can train many images all the same.
    available = max(left - STARTS[devices.backend()] * trial.overhead_seconds(), left / 10)
    fitting = int(SHARE_OF_TIME * available / EPOCHS_IN_ALL / image_seconds) // batch_size
    train_size = min(setting.train_size, max(LEAST_STEPS, fitting) * batch_size)
    if train_size < setting.train_size:
        setting.progress.info(
            f"The trial took {1000 * image_seconds:.1f} ms an image: {train_size:,} training images, not "
            f"{setting.train_size:,}, fit into the time."
        )
    return replace(_with_images(setting, train_size), epochs=EPOCHS if fitting >= LEAST_STEPS else LEAST_EPOCHS)


def _with_images(setting, train_size):
    val_size = max(1, setting.val_size * train_size // setting.train_size)
    return replace(setting, train_size=train_size, val_size=val_size)
