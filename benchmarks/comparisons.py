"""Shared by the benchmarks of an epoch: our epoch, the comparison with another one, the start-up, the device."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

# An accelerator trains these images within a second; their preparation on the host takes ten times as long.
HOST_BOUND, HOST_BOUND_IMAGES = ("keras_generator", "keras_random_layers"), 5120


def split_of(options, *, images=None, val_size=None):
    """Return a `Split` with one validation image for five training images, as in CIFAR-10."""
    from colabcnn.data.split import load_split

    images = images or options.images
    return load_split(options.data, train_size=images, val_size=val_size or val_size_of(images))


def val_size_of(images):
    return max(250, images // 5 // 250 * 250)


def our_epoch(split, precision, folder, experiment=None, execution=None):
    """Return a function that trains one more epoch as `run` does, and returns its seconds."""
    from colabcnn import ABLATIONS
    from colabcnn.network import devices
    from colabcnn.network.keras_types import FitCallback
    from colabcnn.network.training_model import PlanEpoch
    from colabcnn.training.executable_model import compiled_model, fit_options
    from recording import Clock, quiet_recording

    class StopAfterOne(FitCallback):
        """Stops after an epoch; it comes after the recorder, which then does not take the epoch for the last one."""

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    devices.keep_compilations()
    experiment, execution = experiment or ABLATIONS["06_final"], execution or devices.auto_execution()
    precision = devices.auto_precision() if precision == "auto" else precision
    sizes = len(split.train_labels), len(split.val_labels)
    model = compiled_model(experiment, split, seed=0, precision=precision, execution=execution)
    plan = PlanEpoch(experiment, 0, sizes[0])
    recorder, display = quiet_recording(Path(folder), experiment, precision, sizes, checkpoint_minutes=1)
    clock = Clock()

    def epoch(callbacks=()):
        done = len(recorder.history["epoch"])
        # `epochs` is far ahead, since the end of a run always writes a checkpoint.
        model.fit(
            **fit_options(model, *sizes),
            initial_epoch=done,
            epochs=done + 700,
            callbacks=[plan, recorder, display, StopAfterOne(), *callbacks, clock],
        )
        return clock.seconds

    epoch.model = model
    return epoch


def against(peer, ours="auto", **peer_options):
    """Return a comparison of our epoch with a peer's."""

    def comparison(options):
        import peers
        from colabcnn.network import devices

        split, their_images = split_of(options), options.images
        if peer in HOST_BOUND and not devices.is_cpu():
            their_images = min(their_images, HOST_BOUND_IMAGES)
        of_peer = {key: in_words(value) for key, value in peer_options.items()}
        theirs = getattr(peers, peer)(
            split if their_images == options.images else split_of(options, images=their_images), **of_peer
        )
        memory = None
        if not devices.is_cpu():
            theirs()  # Before our model exists, so that the peak memory is theirs.
            memory = device_memory(of_torch=peer == "plain_torch")
        with tempfile.TemporaryDirectory() as folder:
            mine = our_epoch(split, ours, folder)
            precisions = ours, peer_options.get("precision", "float32")
            compared = compare_epochs(mine, peer, scaled(theirs, options.images / their_images), precisions, options)
        return compared | {"memory": memory, "their_images": their_images}

    return comparison


def scaled(epoch, factor):
    """Return an epoch whose seconds are multiplied by `factor`."""
    return epoch if factor == 1 else lambda: factor * epoch()


def start_up(options):
    """Return the seconds from `run` to the end of the first step, in up to three processes, one after another."""
    code = """
import sys, time
import keras
from colabcnn.training.run import run
began = time.monotonic()
class First(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        print(time.monotonic() - began, flush=True)
        import os
        os._exit(0)
run("06_final", sys.argv[1], data=sys.argv[2], train_size=None, callbacks=[First()], allow_long=True, quiet=True)
"""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
        # A cache that already holds the step would give no cold start.
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        for number in range(3):
            if seconds and time.monotonic() + seconds[-1] > options.until:
                break
            command = [sys.executable, "-c", code, f"{folder}/{number}", options.data]
            completed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if completed.returncode:
                sys.exit(completed.returncode)
            seconds.append(round(float(completed.stdout.split()[0]), 1))
    return {"seconds": seconds}


def seconds_of_endings(epoch):
    """Return the longest time from an epoch's end to that of its `fit`, of five."""
    waited = []
    for _ in range(5):
        began = time.perf_counter()
        seconds = epoch()
        waited.append(time.perf_counter() - began - seconds)
    return max(waited)


def compare_epochs(first, name, second, precisions, options):
    """Return the result of `pairs.compare` for two functions that train an epoch, and the precisions of both."""
    from pairs import compare

    compared = compare("ours", first, name, second, images=options.images, pairs=options.pairs, until=options.until)
    return compared | {"precisions": [in_words(precision).removeprefix("mixed_") for precision in precisions]}


def device_memory(of_torch=False):
    """Return the peak GPU memory of this process in megabytes, or None if it is not counted."""
    if of_torch:
        import torch  # pyright: ignore[reportMissingImports]  # A peer's, not the tests'.

        return round(torch.cuda.max_memory_allocated() / 1e6) if torch.cuda.is_available() else None
    from colabcnn.network.arithmetic import peak_memory

    peak, of = peak_memory()
    return None if peak is None or of != "device" else round(peak / 1e6)


def in_words(value):
    """Return the precision; "auto" becomes the default of this device."""
    from colabcnn.network import devices

    return devices.auto_precision() if value == "auto" else value


def by_jax(function):
    import jax

    return jax.jit(function)


def by_tensorflow(xla):
    def compiled(function):
        import tensorflow as tf

        return tf.function(function, jit_compile=xla)

    return compiled


def device(options):
    """Return the device, the versions, the GFLOP of one image, and the measured GFLOP/s of the device."""
    import platform

    from colabcnn import ABLATIONS
    from colabcnn.network import devices
    from colabcnn.network.arithmetic import gflop_an_image, matrix_gflops
    from colabcnn.version import commit

    precision = devices.auto_precision()
    others = () if devices.is_cpu() else ("mixed_bfloat16", "mixed_float16", "float32")
    return {
        "device": devices.device_name(),
        "cpu": devices.is_cpu(),
        "bfloat16": devices.cpu_has_bfloat16(),
        "versions": devices.versions() | versions_of("jax", "optax", "torch", "scipy"),
        "commit": commit(),
        "platform": platform.platform(),
        "precision": precision,
        "execution": repr(devices.auto_execution()),
        "steps_a_call": devices.auto_execution().steps_per_call,
        "gflop_an_image": round(gflop_an_image(ABLATIONS["06_final"]), 3),
        "gflops": {name: round(matrix_gflops(name)) for name in dict.fromkeys((precision, *others))},
    }


def versions_of(*packages):
    """Return the versions of the installed packages among these."""
    return {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)}
