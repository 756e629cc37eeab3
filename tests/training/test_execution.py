"""How steps are executed changes the speed only, and a run continues where a device cannot execute something."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from colabcnn import RECIPES, run
from colabcnn.data.split import load_split
from colabcnn.errors import Interrupted, cause_of
from colabcnn.experiments.execution import Execution
from colabcnn.network import devices, training_model
from colabcnn.network.model import reseed_dropout
from colabcnn.network.training_model import PlanEpoch
from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.history import read_history
from colabcnn.store.run_record import Start
from colabcnn.training import executable_model
from colabcnn.training.executable_model import compiled_model, fit_options
from support.refusals import refuse_training
from support.runs import differences
from support.shared_files import COMPLETE, OPTIONS

pytestmark = [pytest.mark.versions, pytest.mark.kill]

# An epoch has 7 steps, the last of 4 images: 3 steps a call leave a remainder, 100 put all into one call.
STEPS = (3, pytest.param(100, marks=pytest.mark.colab))


ON_JAX = keras.backend.backend() == "jax"


class StopAfterFirst(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 0


@pytest.fixture
def small_experiment():
    return COMPLETE


@pytest.fixture
def execute(monkeypatch):
    def execute(steps_per_call, xla=False):
        monkeypatch.setattr(devices, "auto_execution", lambda: Execution(steps_per_call, xla or ON_JAX))

    return execute


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a function from steps a call to the folder of a finished run of three epochs; tests only read it."""
    folders = {}

    def uninterrupted(steps_per_call):
        if steps_per_call not in folders:
            folders[steps_per_call] = tmp_path_factory.mktemp("uninterrupted") / str(steps_per_call)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(devices, "auto_execution", lambda: Execution(steps_per_call, xla=ON_JAX))
                run(COMPLETE, folders[steps_per_call], epochs=3, **OPTIONS)
        return folders[steps_per_call]

    return uninterrupted


def weights_of(run_dir):
    return newest_checkpoint(run_dir / "checkpoints")[0].arrays["model"]


@pytest.mark.parametrize("steps", STEPS)
def test_several_steps_a_call_equal_single_steps(uninterrupted, steps):
    (start,) = json.loads((uninterrupted(steps) / "run.json").read_text())["starts"]
    assert start["execution"]["steps_per_call"] == steps
    single, several = (read_history(uninterrupted(number) / "history.csv") for number in (1, steps))
    # One image of 100 or of 40 may be classified differently: the last bits of a step depend on how XLA compiled it.
    for column, tolerance in {"loss": 1e-3, "accuracy": 0.011, "val_loss": 1e-3, "val_accuracy": 0.026}.items():
        np.testing.assert_allclose(several[column], single[column], rtol=1e-3, atol=tolerance)
    for one, other in zip(weights_of(uninterrupted(1)), weights_of(uninterrupted(steps)), strict=True):
        # The gradient of a bias before BatchNorm is a rounding error only, which Adam scales to a full step.
        assert one.ndim < 4 or np.allclose(one, other, atol=5e-3)


@pytest.mark.colab
@pytest.mark.parametrize("steps", STEPS)
def test_resumed_run_equals_uninterrupted_run_for_each_number_of_steps(
    tmp_path, small_experiment, small_options, execute, uninterrupted, steps
):
    execute(steps)
    run(small_experiment, tmp_path, callbacks=[StopAfterFirst()], **small_options)
    run(small_experiment, tmp_path, **small_options)
    assert differences(tmp_path, uninterrupted(steps)) == []


@pytest.mark.newest
def test_given_execution_applies_inside_the_context_only(tmp_path, small_experiment, small_options):
    default = devices.auto_execution()
    with devices.execution_given(Execution(3, xla=default.xla)):
        run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    assert json.loads((tmp_path / "run.json").read_text())["starts"][0]["execution"]["steps_per_call"] == 3
    assert devices.auto_execution() == default


@pytest.mark.colab
def test_trial_before_the_run_does_not_change_the_run(
    tmp_path, small_experiment, small_options, execute, uninterrupted, monkeypatch
):
    tried = uninterrupted(3)
    execute(3)
    monkeypatch.setattr("colabcnn.training.executable_model.try_out", lambda *arguments: None)
    run(small_experiment, tmp_path, **small_options)
    assert differences(tried, tmp_path) == []


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow traces a step once for all shapes")
def test_failure_of_only_the_last_call_of_an_epoch_is_found_before_the_run(
    tmp_path, small_experiment, small_options, execute, monkeypatch, capsys
):
    # 100 images are two calls of three steps, and a last one of 4 images.
    refuse_training(monkeypatch, lambda positions: positions == 4)
    execute(3)
    result = run(small_experiment, tmp_path / "run", **{**small_options, "quiet": False})
    assert "3 steps a call, XLA failed on this device" in capsys.readouterr().out
    assert result.complete


@pytest.mark.colab
def test_ctrl_c_during_the_trial_ends_the_run_in_order(tmp_path, small_experiment, small_options, execute, monkeypatch):
    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    execute(3)
    with monkeypatch.context() as patched:
        patched.setattr("colabcnn.training.executable_model.try_out", interrupted)
        with pytest.raises(Interrupted):
            run(small_experiment, tmp_path, **small_options)
    assert json.loads((tmp_path / "run.json").read_text())["starts"][0]["ended"] == "interrupted"
    assert run(small_experiment, tmp_path, **small_options).complete


@pytest.mark.colab
def test_resumed_run_keeps_its_execution_on_the_same_device(
    tmp_path, small_experiment, small_options, execute, uninterrupted, capsys, monkeypatch
):
    execute(3)
    run(small_experiment, tmp_path / "resumed", callbacks=[StopAfterFirst()], **small_options)
    execute(1)
    run(small_experiment, tmp_path / "resumed", **{**small_options, "quiet": False})
    assert "The run keeps its execution on this device: 3 steps a call" in capsys.readouterr().out
    assert differences(tmp_path / "resumed", uninterrupted(3)) == []
    monkeypatch.setattr(devices, "device_name", lambda: "another")
    run(small_experiment, tmp_path / "resumed", **{**small_options, "epochs": 4})
    starts = json.loads((tmp_path / "resumed" / "run.json").read_text())["starts"]
    assert [start["execution"]["steps_per_call"] for start in starts] == [3, 3, 1]


def test_failed_execution_is_reported_in_one_line_and_the_run_is_plain(
    tmp_path, small_experiment, small_options, execute, uninterrupted, monkeypatch, capsys
):
    plain = uninterrupted(1)
    refuse_training(monkeypatch, lambda positions: True)
    execute(3)
    run(small_experiment, tmp_path / "refused", **{**small_options, "quiet": False})
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if "failed on this device" in line]
    assert "3 steps a call" in line
    assert "division by zero" in line
    (start,) = json.loads((tmp_path / "refused" / "run.json").read_text())["starts"]
    assert (start["execution"]["steps_per_call"], start["refused"]) == (
        1,
        f"{Execution(3, xla=ON_JAX).in_words()}: ZeroDivisionError: division by zero",
    )
    assert differences(tmp_path / "refused", plain) == []


def start_of(execution=None, refused=None, **changes):
    versions = {"keras": "3", keras.backend.backend(): "1"}
    start = Start(time="", first_epoch=1, device="GPU", versions=versions, commit="abc")
    return replace(start, execution=execution, refused=refused, **changes)


FAST, SLOW = Execution(3, xla=True), devices.plain_execution()


@pytest.mark.newest
@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([], (FAST, None)),
        ([start_of(SLOW, "x: failed")], (SLOW, "x: failed")),
        ([start_of(SLOW, "x: failed", commit="former")], (FAST, None)),
        ([start_of(SLOW, "x: failed", versions={"keras": "2", keras.backend.backend(): "1"})], (FAST, None)),
        ([start_of(SLOW, "x: failed", device="another")], (FAST, None)),
        ([start_of(SLOW, "x: OOM when allocating tensor")], (FAST, None)),
        ([start_of(SLOW, "x: there is no room")], (SLOW, "x: there is no room")),
        ([start_of(SLOW, "x: ResourceExhaustedError: 2 root errors")], (FAST, None)),
        ([start_of(SLOW, "x: failed to allocate memory")], (FAST, None)),
        ([start_of(SLOW, "x: CUDA_ERROR_OUT_OF_MEMORY")], (FAST, None)),
        ([start_of(FAST), start_of(SLOW, "x: Out of memory")], (FAST, None)),
        ([start_of(SLOW), start_of(SLOW, "x: Out of memory")], (SLOW, None)),
        ([start_of(None, "x: the process ended")], (FAST, None)),
        ([start_of(None, "x: the process ended"), start_of()], (FAST, None)),
        ([start_of(None, "x: ended")] * 2, (SLOW, "x: ended")),
        ([start_of(None, "x: ended"), start_of(FAST), start_of(None, "x: ended")], (FAST, None)),
        ([start_of(None, "x: ended")] * 2 + [start_of(SLOW, "x: ended")], (SLOW, "x: ended")),
    ],
)
def test_execution_that_failed_is_tried_again_where_it_may_succeed(execute, starts, expected):
    execute(3, xla=True)
    assert executable_model.execution_of([*starts, start_of()], lambda message: None) == expected


@pytest.mark.parametrize(("times", "steps"), [(1, 3), (2, 1)])
def test_execution_that_ends_the_process_is_tried_twice(
    tmp_path, small_experiment, small_options, execute, uninterrupted, monkeypatch, times, steps
):
    def end(*arguments):
        raise SystemExit  # Like the end of the process, it is no `Exception`.

    execute(3)
    with monkeypatch.context() as patched:
        patched.setattr("colabcnn.training.executable_model.try_out", end)
        for _ in range(times):
            with pytest.raises(SystemExit):
                run(small_experiment, tmp_path, **small_options)
    run(small_experiment, tmp_path, **small_options)
    assert json.loads((tmp_path / "run.json").read_text())["starts"][-1]["execution"]["steps_per_call"] == steps
    assert differences(tmp_path, uninterrupted(steps)) == []


@pytest.mark.newest
def test_cause_of_an_error_of_tensorflow_is_the_line_behind_its_stack():
    # As TensorFlow 2.20 and 2.21 write it.
    message = """Graph execution error:

Detected at node GatherV2 defined at (most recent call last):
  File "one.py", line 5, in <module>

<stack traces unavailable>
indices = 5 is not in [0, 2)
\t [[{{node GatherV2}}]] [Op:__inference_g_10]"""
    assert cause_of(RuntimeError(message)) == "RuntimeError: indices = 5 is not in [0, 2)"
    several = "2 root error(s) found.\n  (0) RESOURCE_EXHAUSTED: OOM\n\t [[node]]\n  (1) CANCELLED"
    assert cause_of(RuntimeError(several)) == "RuntimeError: (0) RESOURCE_EXHAUSTED: OOM"


@pytest.mark.newest
def test_cause_of_an_error_without_a_message_is_its_type():
    assert cause_of(ValueError()) == "ValueError"
    assert cause_of(ValueError("\n one\n two")) == "ValueError: one"


@pytest.mark.colab
def test_refused_model_is_gone_before_the_plain_one_is_built(
    tmp_path, small_experiment, small_options, execute, monkeypatch
):
    """It may have filled the device's memory."""
    built, models_there, compiled_model = weakref.WeakSet(), [], executable_model.compiled_model

    def count_models(**options):
        models_there.append(len(built))
        model = compiled_model(**options)
        built.add(model)
        return model

    monkeypatch.setattr(executable_model, "compiled_model", count_models)
    refuse_training(monkeypatch, lambda positions: True)
    execute(3)
    run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    assert models_there == [0, 0]


@pytest.mark.colab
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX is always compiled by XLA")
def test_several_steps_compiled_by_xla_train(tmp_path, small_experiment, small_options, execute, capsys):
    execute(3, xla=True)
    result = run(small_experiment, tmp_path, **{**small_options, "epochs": 1, "quiet": False})
    assert "failed on this device" not in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["starts"][0]["execution"]["xla"] is True
    assert np.isfinite(result.history["loss"]).all()


def test_cpu_executes_one_step_a_call():
    parts = {"fused_batch_norm": not ON_JAX, "xla_augmentation": not ON_JAX}
    assert devices.auto_execution() == Execution(1, xla=ON_JAX, **parts)


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16"), ((9, 0), "mixed_bfloat16")]
)
def test_a_gpus_compute_capability_decides_on_the_precision(monkeypatch, capability, precision):
    steps = 16
    if ON_JAX:
        import jax

        numbers = ".".join(map(str, capability))
        gpu, steps = SimpleNamespace(platform="gpu", device_kind="Some GPU", compute_capability=numbers), 64
        monkeypatch.setattr(jax, "devices", lambda: [gpu])
    else:
        import tensorflow as tf

        details = {"device_name": "Some GPU", "compute_capability": capability}
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["gpu"])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert not devices.is_cpu()
    assert devices.device_name() == "Some GPU"
    assert devices.auto_execution() == Execution(steps, xla=True)
    assert devices.auto_precision() == precision


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX has all operations on every device")
@pytest.mark.parametrize(
    ("recipe", "precision"), [("07_without_luck", "mixed_float16"), ("08_in_minutes", "mixed_bfloat16")]
)
def test_a_gpu_has_every_operation_of_plain_steps(monkeypatch, recipe, precision):
    """TensorFlow makes an operation that a GPU lacks on the CPU, and copies what it needs to there and back."""
    import tensorflow as tf
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    if not tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow lists no operations of GPUs")
    monkeypatch.setattr(training_model, "is_cpu", lambda: False)
    split, experiment = load_split("synthetic", train_size=256, val_size=250), RECIPES[recipe]
    model = compiled_model(experiment, split, seed=0, precision=precision, execution=devices.plain_execution())
    plan = PlanEpoch(experiment, seed=0, size=256)
    plan.set_model(model)
    plan.on_epoch_begin(0)
    for step in (model.train_step, model.test_step):
        traced = tf.function(lambda positions, step=step: step((positions,)))
        graph = traced.get_concrete_function(tf.TensorSpec((128,), "int64")).graph
        operations = [*graph.get_operations()]
        for definition in graph.as_graph_def().library.function:
            operations += function_def_to_graph(definition).get_operations()
        assert len(operations) > 100
        assert [operation.type for operation in operations if not has_gpu_kernel(operation)] == []


def has_gpu_kernel(operation):
    """Return whether TensorFlow has code for an operation with its dtypes on a GPU; a GPU need not be there."""
    from tensorflow.python.framework import kernels

    def fits(constraint):
        allowed = constraint.allowed_values.list.type
        return not allowed or operation.get_attr(constraint.name).as_datatype_enum in allowed

    found = kernels.get_registered_kernels_for_op(operation.type).kernel
    return any(kernel.device_type in ("GPU", "DEFAULT") and all(map(fits, kernel.constraint)) for kernel in found)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX names other GPUs and TPUs")
@pytest.mark.parametrize("capability", [{}, {"compute_capability": None}, {"compute_capability": "gfx90a"}])
def test_accelerator_without_a_number_has_bfloat16(monkeypatch, capability):
    import jax

    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="tpu", device_kind="v5e", **capability)])
    assert devices.device_name() == "v5e"
    assert devices.auto_precision() == "mixed_bfloat16"


@pytest.mark.colab
def test_precision_does_not_depend_on_the_global_dtype_policy(tmp_path, small_experiment, small_options):
    options = {**small_options, "precision": "float32"}
    run(small_experiment, tmp_path / "plain", **options)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        run(small_experiment, tmp_path / "set", callbacks=[StopAfterFirst()], **options)
    finally:
        keras.config.set_dtype_policy("float32")
    run(small_experiment, tmp_path / "set", **options)
    assert differences(tmp_path / "set", tmp_path / "plain") == []


@pytest.mark.colab
def test_augmentation_compiled_by_xla_gives_the_same_losses(tmp_path, small_experiment, small_options, monkeypatch):
    if ON_JAX:
        pytest.skip("JAX is always compiled by XLA")
    losses, options = [], {**small_options, "precision": "float32"}
    for execution in (Execution(1, xla=False), Execution(1, xla=False, xla_augmentation=True)):
        monkeypatch.setattr(devices, "auto_execution", lambda execution=execution: execution)
        losses.append(run(small_experiment, tmp_path / str(execution.xla_augmentation), **options).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the operation is TensorFlow's")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.05)])
def test_fused_batch_norm_equals_keras(small_experiment, precision, tolerance):
    split = load_split("synthetic", train_size=4, val_size=20)
    images = split.train_images.astype(np.float32) / 255

    def outcome(fused):
        execution = Execution(1, xla=False, fused_batch_norm=fused)
        model = compiled_model(small_experiment, split, seed=0, precision=precision, execution=execution)
        rng = np.random.default_rng(0)
        for layer in model.network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.5  # With so few images the test can distinguish biased and unbiased variance.
                for weight in layer.weights:
                    weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        reseed_dropout(model.network, 0, 1)
        before = model(images, training=False)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=split.train_labels, y_pred=model(images, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in model.network.trainable_weights])
        moving = [weight.value for weight in model.network.non_trainable_weights if "moving" in weight.path]
        outcome = [np.array(value) for value in (before, loss, *gradients, model(images, training=False))]
        return outcome, [np.array(value) for value in moving]

    import tensorflow as tf

    (fused, fused_statistics), (plain, plain_statistics) = outcome(True), outcome(False)
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    # The first layer has the same inputs in both; its statistics are computed in float32 in any precision.
    for one, other in zip(fused_statistics[:2], plain_statistics[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the operation is TensorFlow's")
def test_fused_batch_norm_does_not_change_a_frozen_layer(small_experiment):
    split = load_split("synthetic", train_size=48, val_size=20)
    model = compiled_model(
        small_experiment, split, seed=0, precision="float32", execution=Execution(1, False, fused_batch_norm=True)
    )
    layer = model.network.get_layer("batch_norm_1_1")
    layer.trainable = False
    before = np.array(layer.moving_mean)
    model(split.train_images.astype(np.float32), training=True)
    np.testing.assert_array_equal(np.array(layer.moving_mean), before)
    assert np.abs(np.array(model.network.get_layer("batch_norm_2_1").moving_mean)).max() > 0


@pytest.mark.parametrize(
    ("flags", "under_tensorflow"),
    [
        ("fpu avx2 avx512f avx512_bf16", "mixed_bfloat16"),
        ("fpu avx512f amx_bf16 amx_tile", "mixed_bfloat16"),
        ("fpu avx2 avx512f avx512_bf16x", "float32"),
    ],
)
def test_cpu_with_bfloat16_instructions_uses_bfloat16_under_tensorflow(tmp_path, monkeypatch, flags, under_tensorflow):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    expected = under_tensorflow if keras.backend.backend() == "tensorflow" else "float32"
    assert devices.auto_precision() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux reports the usable cores")
def test_device_name_counts_the_cores_that_the_process_may_use():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert devices.device_name().endswith(", 1 core")
    finally:
        os.sched_setaffinity(0, cores)


def test_cpu_without_cpuinfo_uses_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "missing")
    assert devices.auto_precision() == "float32"


@pytest.mark.colab
@pytest.mark.parametrize("steps", [1, 3])
def test_float16_skips_steps_with_overflow_and_then_learns(small_experiment, steps):
    split = load_split("synthetic", train_size=96, val_size=20)
    execution = Execution(steps, xla=ON_JAX)
    model = compiled_model(small_experiment, split, seed=0, precision="mixed_float16", execution=execution)
    optimizer = model.optimizer
    optimizer.dynamic_scale.assign(2.0**40)
    before = [np.array(weight) for weight in model.network.trainable_weights]
    plan = PlanEpoch(small_experiment, 0, 96)
    options = {**fit_options(model, 96, 20), "callbacks": [plan]}
    model.fit(**options, epochs=1)
    assert float(optimizer.dynamic_scale) == 2.0**34  # Halved at each of six steps.
    assert int(optimizer.inner_optimizer.iterations) == 0
    for weight, old in zip(model.network.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), old)
    history = model.fit(**options, initial_epoch=1, epochs=8).history
    assert int(optimizer.inner_optimizer.iterations) > 12
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
@pytest.mark.parametrize("own_cache", [False, True])
def test_jax_keeps_compiled_code_for_the_next_start(tmp_path, own_cache):
    code = """
from dataclasses import replace
from colabcnn import ABLATIONS, run
small = replace(ABLATIONS["06_final"], name="small", kernel_sizes=(3,), filters=(4, 8))
run(small, "run", data="synthetic", train_size=20, val_size=20, epochs=1, quiet=True)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "own_cache") if own_cache else ""
    if own_cache:  # By default JAX keeps what took a second to compile.
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    else:
        environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)
    completed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr
    kept = tmp_path / "own_cache" if own_cache else tmp_path / "cache" / "colabcnn" / "jax"
    # The step; in the default cache everything else, too.
    assert len(list(kept.iterdir())) >= (1 if own_cache else 20)
    assert own_cache != (tmp_path / "cache" / "colabcnn").exists()
