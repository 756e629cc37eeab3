"""The device that Keras computes on, and with which versions."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import keras

from colabcnn.errors import Error


def backend():
    """Return Keras's backend, "tensorflow" or "jax".

    Raises:
        Error: it is another one.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "jax"):
        raise Error(f"Keras runs on {name!r}; expected tensorflow or jax: set KERAS_BACKEND before Python starts.")
    return name


def device_name():
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


def is_cpu():
    """Return whether Keras computes on a CPU, for want of a GPU or TPU."""
    if backend() == "jax":
        import jax

        return jax.devices()[0].platform == "cpu"
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def auto_precision():
    """Return the precision that suits the device.

    float32 on a CPU; mixed_bfloat16 on a TPU and on a GPU with bfloat16 (compute capability 8.0, Ampere, and newer);
    mixed_float16 on an older GPU, such as the T4.
    """
    if is_cpu():
        return "float32"
    if backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", None)
        return "mixed_float16" if capability and float(capability) < 8.0 else "mixed_bfloat16"
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return "mixed_bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "mixed_float16"


def versions():
    """Return the versions that can change a run's last bits, by package name."""
    packages = ("colabcnn", "keras", "numpy", *(("jax", "jaxlib") if backend() == "jax" else ("tensorflow",)))
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def commit():
    """Return the commit of the checkout that this library runs from, "-dirty" behind it if changed, or None."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package):
    if package == "tensorflow":
        import tensorflow  # The CPU build carries the same module under another name.

        return tensorflow.__version__
    if package == "colabcnn":
        import colabcnn

        return colabcnn.__version__
    return metadata.version(package)


def _processor_name():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
