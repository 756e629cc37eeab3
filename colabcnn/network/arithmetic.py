"""A device's peak speed, the operations of training, and the memory in use."""

import contextlib
import math
import resource
import sys
import time

import numpy as np

from colabcnn.experiments.experiment import Experiment
from colabcnn.network import devices
from colabcnn.network.keras_types import ops

# For one image: one forward pass; the backward pass costs two.
TRAINING_PASSES = 3
MATRIX_SIZE_CPU, MATRIX_SIZE = 2048, 8192


def gflop_an_image(experiment: Experiment) -> float:
    """Return the floating-point operations of training on one image, in 1e9: two per multiply-add, three passes."""
    of_dense = math.prod(experiment.weight_shapes()[-2])
    of_convolutions = (
        size**2 * kernel**2 * channels * filters for kernel, channels, filters, size in experiment.convolutions()
    )
    return 2 * TRAINING_PASSES * (sum(of_convolutions) + of_dense) / 1e9


def matrix_gflops(precision: str) -> float:
    """Return the GFLOP/s that the device reaches in one large matrix product, the fastest of three to ten.

    Args:
        precision: "float32", "mixed_float16" or "mixed_bfloat16".
    """
    # On a GPU one product takes no longer than its launch and the copy of a result to the host.
    size, products = (MATRIX_SIZE_CPU, 1) if devices.is_cpu() else (MATRIX_SIZE, 20)
    # The scale keeps repeated products finite: a GPU multiplies infinite numbers faster than others.
    matrix = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32) / math.sqrt(size)
    matrix = ops.cast(matrix, precision.removeprefix("mixed_"))
    seconds = []
    for _ in range(10):
        start, product = time.perf_counter(), matrix
        for _ in range(products):
            product = ops.matmul(product, matrix)
        ops.convert_to_numpy(ops.cast(product[0, 0], "float32"))  # The device may still compute; this waits for it.
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 2 and sum(seconds) > 2:
            break
    return products * 2 * size**3 / min(seconds) / 1e9


def reset_peak_memory() -> None:
    """Reset `peak_memory`, where the backend can: TensorFlow on a GPU."""
    if devices.backend() == "tensorflow" and not devices.is_cpu():
        import tensorflow as tf

        with contextlib.suppress(Exception):  # As below.
            tf.config.experimental.reset_memory_stats("GPU:0")


def peak_memory() -> tuple[int | None, str]:
    """Return `(bytes, of)`: the most memory in use, of "device" or, on a CPU, "process"; bytes None if not known."""
    if devices.is_cpu():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
    try:
        if devices.backend() == "jax":
            import jax

            return jax.devices()[0].memory_stats()["peak_bytes_in_use"], "device"
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"], "device"
    except Exception:  # Some allocators do not count; each raises its own error.
        return None, "device"
