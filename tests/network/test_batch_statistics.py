"""`renew_statistics` sets BatchNorm's statistics to those of the images and does not change training."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from colabcnn import ABLATIONS, build_model, load_synthetic, run
from colabcnn.inspection.weights import network_with_weights
from colabcnn.network.batch_norm import renew_statistics
from colabcnn.store.run_folder import open_checkpoint

pytestmark = pytest.mark.versions

SMALL = {"kernel_sizes": (1, 3), "filters": (4, 8), "batch_size": 16}


@pytest.fixture
def small():
    return replace(ABLATIONS["06_final"], name="small", dropout=0.5, **SMALL)


def moving_statistics(model):
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    variables = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    return variables, [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def test_statistics_become_those_of_the_images(small):
    (images, _), _ = load_synthetic(48, 1)
    model = build_model(small)
    variables, _ = moving_statistics(model)
    rng = np.random.default_rng(0)
    for variable in variables:
        variable.assign(rng.uniform(1, 100, variable.shape))
    variables[0].assign(np.full(variables[0].shape, np.inf))  # As after an overflow in 16 bits.
    renew_statistics(model, images, batch_size=48)

    normalized = images.astype(np.float32) / 255
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            mean, variance = normalized.mean(axis=(0, 1, 2)), normalized.var(axis=(0, 1, 2))
            np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.moving_mean), mean, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.moving_variance), variance, rtol=1e-3)
            normalized = (normalized - mean) / np.sqrt(variance + layer.epsilon)  # Gamma starts at 1 and beta at 0.
        elif not isinstance(layer, (keras.layers.InputLayer, keras.layers.Dropout)):
            normalized = keras.ops.convert_to_numpy(layer(normalized))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_batches_have_equal_weight_at_any_momentum(small, momentum):
    (images, _), _ = load_synthetic(48, 1)
    images = np.concatenate([images, images // 4, 255 - images])  # Each third has other statistics.
    model = build_model(replace(small, batch_norm_momentum=momentum))
    renew_statistics(model, images, batch_size=48)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    assert first.momentum == momentum
    activations = keras.ops.convert_to_numpy(model.get_layer("conv_1_1")(images.astype(np.float32) / 255))
    mean = activations.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(first.moving_mean), mean, rtol=1e-3, atol=1e-3)


def test_frozen_layer_keeps_its_statistics(small):
    (images, _), _ = load_synthetic(48, 1)
    model = build_model(small)
    frozen = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    frozen.trainable = False
    frozen.moving_mean.assign(np.full(frozen.moving_mean.shape, -7.0))
    renew_statistics(model, images, batch_size=48)
    mean, variance, *others = moving_statistics(model)[1]
    assert (mean == -7).all() and (variance == 1).all()
    assert not any((value == 0).all() or (value == 1).all() for value in others)


@pytest.mark.colab
def test_training_is_the_same_and_validation_uses_the_renewed_statistics(tmp_path, small):
    options = {"data": "synthetic", "train_size": 96, "val_size": 40, "epochs": 2, "quiet": True}
    options["precision"] = "float32"
    plain = run(small, tmp_path / "plain", **options)
    precise = run(replace(small, precise_batch_norm=True), tmp_path / "precise", **options)
    for column in ("loss", "accuracy"):
        assert plain.history[column] == precise.history[column]
    assert plain.history["val_loss"] != precise.history["val_loss"]

    weights = {}
    for name in ("plain", "precise"):
        _, record, checkpoint = open_checkpoint(tmp_path / name)
        network = network_with_weights(record, checkpoint.arrays["model"])
        weights[name] = [keras.ops.convert_to_numpy(variable) for variable in network.trainable_variables]
        if name == "precise":  # A second renewal over the same images does not change them.
            _, before = moving_statistics(network)
            (images, _), _ = load_synthetic(96, 1)
            renew_statistics(network, images)
            for one, other in zip(before, moving_statistics(network)[1], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(weights["plain"], weights["precise"], strict=True):
        assert np.array_equal(one, other)
