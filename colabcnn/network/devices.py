"""The device that Keras computes on, how it executes training steps, and the versions in use."""

import contextlib
import contextvars
import importlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras

from colabcnn.errors import Error
from colabcnn.experiments.execution import Execution
from colabcnn.version import __version__

CPU_INFO = Path("/proc/cpuinfo")


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
    if accelerator := _accelerator():
        return accelerator.name
    # Only Linux reports how many of the cores this process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"{name}, {cores} core{'' if cores == 1 else 's'}"


def is_cpu() -> bool:
    """Return whether Keras computes on a CPU, because there is no GPU or TPU."""
    return _accelerator() is None


def is_tpu() -> bool:
    """Return whether Keras computes on a TPU."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.devices()[0].platform == "tpu"


def auto_precision() -> str:
    """Return the precision that suits the device.

    mixed_bfloat16 on a TPU, on a GPU with bfloat16 (compute capability 8.0, Ampere, and newer), and under TensorFlow on
    a CPU with instructions for it; mixed_float16 on an older GPU, such as the T4; float32 on other CPUs.
    """
    if accelerator := _accelerator():
        return "mixed_bfloat16" if accelerator.has_bfloat16 else "mixed_float16"
    return "mixed_bfloat16" if backend() == "tensorflow" and cpu_has_bfloat16() else "float32"


def auto_execution() -> Execution:
    """Return the `Execution` that suits the device.

    On a CPU it is one step a call: a call costs little beside a step, and Ctrl-C is checked between two calls. Under
    TensorFlow it is without XLA, which takes three times as long, with BatchNorm fused and the augmentation compiled
    separately (`results/benchmarks` has the gain of each). On a GPU or TPU a call may take longer than a step, so it
    makes several: 64 under JAX, 16 under TensorFlow. These numbers are calculated, not yet measured. Inside
    `execution_given` it is the given one.
    """
    if given := _given_execution.get():
        return given
    accelerator = _accelerator()
    if backend() == "jax":
        return Execution(64 if accelerator else 1, xla=True)
    if accelerator:
        # On a T4, too: loss scaling is a condition, for which XLA lets the host wait in each step.
        return Execution(16, xla=True)
    return Execution(1, xla=False, fused_batch_norm=True, xla_augmentation=True)


def plain_execution() -> Execution:
    """Return the `Execution` that works wherever this backend does."""
    return Execution(steps_per_call=1, xla=backend() == "jax")


@contextlib.contextmanager
def execution_given(execution: Execution) -> Iterator[None]:
    """Give runs that begin inside the `with` this `Execution`, so that two can be compared."""
    token = _given_execution.set(execution)
    try:
        yield
    finally:
        _given_execution.reset(token)


def compilations_folder() -> str | None:
    """Return the folder of JAX's compilation cache, or None if there is none."""
    import jax

    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]  # Added at run time.


def keep_compilations() -> None:
    """Keep JAX's compilations in the user's cache folder, for the next start, unless JAX has a folder for them.

    Compiling takes a minute on a CPU or a GPU, and every start compiles the same programs. By default JAX keeps only
    those that took a second; the small ones are kept, too, since a hundred of them take as long as the large one.
    """
    if backend() != "jax":
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not compilations_folder() and cache != "~/.cache":  # In some containers there is no home folder.
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "colabcnn", "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        compilation_cache.reset_cache()  # JAX has decided at its first compilation that there is no cache.


def versions() -> dict[str, str]:
    """Return the versions that can change a run's last bits, by package name."""
    # Not by their packages' metadata: TensorFlow's CPU build is a package of another name.
    packages = ("keras", "numpy", *(("jax", "jaxlib") if backend() == "jax" else ("tensorflow",)))
    imported = {name: importlib.import_module(name).__version__ for name in packages}
    return {"python": platform.python_version(), "colabcnn": __version__, **imported}


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16; False if this is not Linux, which lists them."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_info("flags").split())


def _cpu_info(field):
    """Return a field of Linux's description of the CPU; "" if there is none."""
    try:
        found = re.search(rf"^{field}\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


class _Accelerator(NamedTuple):
    name: str
    has_bfloat16: bool


def _accelerator():
    """Return the GPU or TPU that Keras computes on, or None."""
    if backend() == "jax":
        import jax

        device = jax.devices()[0]
        # A TPU has no capability, and AMD's is no number: both compute with bfloat16.
        number = re.match(r"\d+", str(getattr(device, "compute_capability", "")))
        has_bfloat16 = number is None or int(number[0]) >= 8
        return None if device.platform == "cpu" else _Accelerator(device.device_kind, has_bfloat16)
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    return _Accelerator(details.get("device_name", "GPU"), details.get("compute_capability", (0, 0)) >= (8, 0))
