"""The device that Keras computes on, and with which versions."""

import contextlib
import contextvars
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import keras

from colabcnn.errors import Error
from colabcnn.version import __version__

CPU_INFO = Path("/proc/cpuinfo")
MAX_STEPS_PER_CALL = 1024


@dataclass(frozen=True)
class Execution:
    """How training steps are executed on the device.

    Args:
        steps_per_call: steps that one call of a compiled function makes.
        xla: whether XLA compiles it. JAX knows nothing else.
        fused_batch_norm: whether each BatchNorm is one operation of TensorFlow's.
        xla_augmentation: whether XLA compiles the augmentation inside a step that it does not compile.
    """

    steps_per_call: int
    xla: bool
    fused_batch_norm: bool = False
    xla_augmentation: bool = False

    def __post_init__(self):
        if not 1 <= self.steps_per_call <= MAX_STEPS_PER_CALL:
            raise Error(f"steps_per_call is {self.steps_per_call}; expected 1 to {MAX_STEPS_PER_CALL}.")


PLAIN = Execution(steps_per_call=1, xla=False)
"""What works wherever Keras does."""

_given_execution: contextvars.ContextVar[Execution | None] = contextvars.ContextVar("given_execution", default=None)


def backend() -> str:
    """Return Keras's backend, "tensorflow" or "jax".

    Raises:
        Error: it is another one.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise Error(f"Keras runs on {name!r}; expected tensorflow or jax: set KERAS_BACKEND before Python starts.")
    return name


def device_name() -> str:
    """Return the device's name: the GPU's or TPU's, else the processor's with its number of usable cores."""
    if backend() == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return device.device_kind
    else:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    # Only Linux knows how many of the cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor_name()}, {cores} cores"


def is_cpu() -> bool:
    """Return whether Keras computes on a CPU, for want of a GPU or TPU."""
    if backend() == "jax":
        import jax

        return jax.devices()[0].platform == "cpu"
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def auto_precision() -> str:
    """Return the precision that suits the device.

    mixed_bfloat16 on a TPU, on a GPU with bfloat16 (compute capability 8.0, Ampere, and newer), and under TensorFlow on
    a CPU with instructions for it; mixed_float16 on an older GPU, such as the T4; float32 on other CPUs.
    """
    if is_cpu():
        return "mixed_bfloat16" if backend() == "tensorflow" and cpu_has_bfloat16() else "float32"
    if backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", None)
        return "mixed_float16" if capability and float(capability) < 8.0 else "mixed_bfloat16"
    return "mixed_bfloat16" if _tensorflow_capability() >= (8, 0) else "mixed_float16"


def auto_execution() -> Execution:
    """Return the `Execution` that suits the device.

    On a CPU a call costs nothing beside a step, XLA takes TensorFlow three times as long, and Ctrl-C is looked for
    between two calls: one step a call, and without XLA BatchNorm fused and the augmentation compiled by itself
    (`results/benchmarks` has what each gives). On others several steps a call, as a call may take longer than a step:
    64 under JAX; under TensorFlow 16 on a GPU of compute capability 8.0 (Ampere) and newer, and 1 on an older one, such
    as the T4, where a step takes longer than its launch. These are from a calculation, not yet from a measurement.
    Inside `execution_given` it is the given one.
    """
    if given := _given_execution.get():
        return given
    if backend() == "jax":
        return Execution(1 if is_cpu() else 64, xla=True)
    if is_cpu():
        return Execution(1, xla=False, fused_batch_norm=True, xla_augmentation=True)
    return Execution(16 if _tensorflow_capability() >= (8, 0) else 1, xla=True)


def plain_execution() -> Execution:
    """Return the `Execution` that works wherever this backend does."""
    return replace(PLAIN, xla=backend() == "jax")


@contextlib.contextmanager
def execution_given(execution: Execution) -> Iterator[None]:
    """Let runs that begin inside the `with` take this `Execution`, so that two can be compared."""
    token = _given_execution.set(execution)
    try:
        yield
    finally:
        _given_execution.reset(token)


def compilations_folder() -> str | None:
    """Return the folder in which JAX keeps what it compiles, or None where it keeps nothing."""
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]  # Added at run time.


def keep_compilations() -> None:
    """Under JAX, keep what XLA compiles in the user's cache folder, for the next start, unless JAX has a folder for it.

    Compiling takes a minute on a CPU or a GPU, and the same program comes at every start. The small ones are kept, too:
    a hundred of them take as long as the large one, and JAX by itself keeps what took a second.
    """
    if backend() != "jax":
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if not compilations_folder():
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "colabcnn" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        compilation_cache.reset_cache()  # With the first thing that it compiled, JAX decided that it has none.


def versions() -> dict[str, str]:
    """Return the versions that can change a run's last bits, by package name."""
    packages = ("colabcnn", "keras", "numpy", *(("jax", "jaxlib") if backend() == "jax" else ("tensorflow",)))
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def commit() -> str | None:
    """Return the commit of the checkout that this library runs from, "-dirty" behind it if changed, or None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _tensorflow_capability():
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return details.get("compute_capability", (0, 0))


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16, as far as Linux tells."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())


def _version(package):
    if package == "tensorflow":
        import tensorflow  # The CPU build carries the same module under another name.

        return tensorflow.__version__
    if package == "colabcnn":
        return __version__
    return metadata.version(package)


def _processor_name():
    try:
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
