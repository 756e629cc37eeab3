"""Each ingredient of a recipe works as documented: Muon, the rate, the loss, the initializer, the border."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from colabcnn import (
    ABLATIONS,
    RECIPES,
    augment,
    build_model,
    plan_epoch,
)
from colabcnn.data.split import split_data
from colabcnn.data.synthetic import load_synthetic
from colabcnn.experiments.ingredients import Constant, RiseAndFall
from colabcnn.network import devices
from colabcnn.network.augmentation import cut_out
from colabcnn.network.optimizers import make_loss, make_optimizer
from colabcnn.training.executable_model import compiled_model

pytestmark = pytest.mark.versions


FINAL = ABLATIONS["06_final"]


def built_optimizer(experiment, precision="float32", steps=5):
    network = build_model(experiment)
    optimizer = make_optimizer(experiment, steps_per_epoch=steps, precision=precision)
    optimizer.build(network.trainable_variables)
    return network, optimizer


def gradients_of(network):
    rng = np.random.default_rng(0)
    return [
        keras.ops.convert_to_tensor(rng.normal(size=variable.shape).astype(np.float32))
        for variable in network.trainable_variables
    ]


def test_muon_trains_the_eight_kernels_after_the_first_and_adam_the_rest():
    network, optimizer = built_optimizer(RECIPES["08_in_minutes"])
    with_velocity = {v.path.partition("/")[2] for v in optimizer.variables if v.path.endswith("_velocity")}
    by_muon = [
        v.path for v in network.trainable_variables if f"{v.path.replace('/', '_')}_velocity" not in with_velocity
    ]
    kernels = [f"conv_{place}/kernel" for place in ("1_2", "1_3", "2_1", "2_2", "2_3", "3_1", "3_2", "3_3")]
    assert by_muon == kernels


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_muon_update_is_nearly_orthogonal(small_recipe, precision):
    muon = replace(small_recipe.optimizer, newton_schulz_steps=5)
    recipe = replace(small_recipe, schedule=Constant(), optimizer=muon)
    network, optimizer = built_optimizer(recipe, precision)
    layer = network.get_layer("conv_2_2")
    before = keras.ops.convert_to_numpy(layer.kernel).reshape(-1, 8)
    gradients = gradients_of(network)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    after = keras.ops.convert_to_numpy(layer.kernel).reshape(-1, 8)

    scaled = before * (8**0.5 / np.linalg.norm(before))
    update = (scaled - after) / muon.learning_rate
    index = [variable.path for variable in network.trainable_variables].index("conv_2_2/kernel")
    gradient = keras.ops.convert_to_numpy(gradients[index]).reshape(-1, 8)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    stretched = left.T @ update @ right.T  # The update in the gradient's singular directions.
    assert np.all((np.diag(stretched) > 0.6) & (np.diag(stretched) < 1.3))
    assert np.abs(stretched - np.diag(np.diag(stretched))).max() < (0.05 if precision == "float32" else 0.15)


def test_other_weights_are_trained_as_by_keras_adam(small_recipe):
    muon = replace(small_recipe.optimizer, adam_learning_rate=0.004)
    recipe = replace(small_recipe, schedule=Constant(), optimizer=muon)
    network, optimizer = built_optimizer(recipe)
    reference = build_model(recipe)
    adam = keras.optimizers.Adam(0.004)
    for _ in range(3):
        gradients = gradients_of(network)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        adam.apply_gradients(zip(gradients, reference.trainable_variables, strict=True))
    for name in ("conv_1_1", "batch_norm_2_2", "probabilities"):
        for one, other in zip(
            network.get_layer(name).trainable_weights, reference.get_layer(name).trainable_weights, strict=True
        ):
            np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (one, other)), rtol=1e-5, atol=1e-7)


def test_rate_rises_then_falls_to_zero_at_the_last_step():
    recipe = replace(RECIPES["08_in_minutes"], schedule=RiseAndFall(rise=0.2), epochs=10)
    rates = rates_of(recipe)
    assert rates[:11] == pytest.approx(np.linspace(0, 0.05, 11))
    assert rates[10:51] == pytest.approx(np.linspace(0.05, 0, 41))
    assert rates[51] == 0


def test_rate_without_rise_starts_at_its_highest():
    recipe = replace(RECIPES["07_without_luck"], schedule=RiseAndFall(), epochs=10)
    assert rates_of(recipe)[:51] == pytest.approx(np.linspace(recipe.optimizer.learning_rate, 0, 51))


def test_schedule_without_a_case_is_an_error_and_no_constant_rate():
    recipe = replace(RECIPES["08_in_minutes"])
    object.__setattr__(recipe, "schedule", "cosine")
    with pytest.raises(NotImplementedError, match="cosine has no schedule of Keras here"):
        make_optimizer(recipe, steps_per_epoch=5, precision="float32")


def rates_of(recipe):
    """Return the rate of each step, and of one step after the run, in epochs of five steps."""
    optimizer, rates = make_optimizer(recipe, steps_per_epoch=5, precision="float32"), []
    for step in range(recipe.epochs * 5 + 2):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    return rates


def test_smoothed_loss_is_the_cross_entropy_with_smoothed_one_hot_labels():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), size=6).astype(np.float32)
    labels = rng.integers(0, 10, 6)
    ours = make_loss(replace(RECIPES["08_in_minutes"], label_smoothing=0.2))(labels, probabilities)
    smoothed = np.eye(10)[labels] * 0.8 + 0.02
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), -(smoothed * np.log(probabilities)).sum(axis=1), rtol=1e-4
    )
    assert make_loss(FINAL) == "sparse_categorical_crossentropy"


def test_dirac_filters_pass_on_one_channel_each():
    recipe = RECIPES["08_in_minutes"]
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 64)).astype(np.float32)
    model = build_model(recipe)
    for place, margin, passed in (("1_2", 1, 64), ("1_3", 2, 64), ("2_1", 0, 64)):
        outputs = keras.ops.convert_to_numpy(model.get_layer(f"conv_{place}")(images))
        expected = images[:, margin : 9 - margin, margin : 9 - margin]
        np.testing.assert_allclose(outputs[..., :passed], expected, atol=1e-6)
    random_kernel = build_model(replace(recipe, initializer="glorot_uniform")).get_layer("conv_2_1").get_weights()[0]
    assert np.array_equal(model.get_layer("conv_2_1").get_weights()[0][..., 64:], random_kernel[..., 64:])


def test_batch_norm_has_the_experiments_momentum():
    model = build_model(replace(RECIPES["08_in_minutes"], batch_norm_momentum=0.75))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in layers} == {0.75}


@pytest.mark.parametrize(("fill_mode", "cutout"), [("nearest", 0), ("reflect", 0), ("reflect", 12)])
@pytest.mark.parametrize("by_xla", [False, True])
def test_step_augments_as_the_experiment_says(small_recipe, fill_mode, cutout, by_xla):
    if by_xla and keras.backend.backend() == "jax":
        pytest.skip("JAX is always compiled by XLA")
    split = split_data(*load_synthetic(32, 8))
    augmentation = replace(small_recipe.augmentation, fill_mode=fill_mode, cutout=cutout)
    experiment = replace(small_recipe, augmentation=augmentation)
    execution = replace(devices.plain_execution(), xla_augmentation=by_xla)
    model = compiled_model(experiment, split, seed=0, precision="float32", execution=execution)
    transforms = plan_epoch(0, 1, size=32, augmentation=experiment.augmentation).transforms
    transforms = {name: values.astype(np.float32) for name, values in transforms.items()}
    transform = model._transform
    if keras.backend.backend() == "jax":
        import jax

        transform = jax.jit(transform)  # As a step does: it sorts the names.
    augmented = keras.ops.convert_to_numpy(transform(split.train_images, transforms))
    centre = {axis: transforms.pop(f"cutout_{axis}") for axis in ("row", "column") if cutout}
    expected, other = (
        keras.ops.convert_to_numpy(augment(split.train_images, **transforms, fill_mode=mode))
        for mode in (fill_mode, "nearest" if fill_mode == "reflect" else "reflect")
    )
    assert np.abs(expected - other).max() > 10
    if cutout:
        uncut = expected
        expected = keras.ops.convert_to_numpy(cut_out(uncut, **centre, size=cutout))
        assert 0.05 < (expected != uncut).mean() < (cutout / 32) ** 2
    np.testing.assert_allclose(augmented, expected, atol=0.01)
