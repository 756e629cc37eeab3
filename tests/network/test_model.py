"""The network is the article's, made of standard layers."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from colabcnn import ABLATIONS, Error, build_model
from colabcnn.network.model import reseed_dropout
from colabcnn.network.variables import read_arrays

pytestmark = pytest.mark.versions

ARTICLE = [  # layer, output without the batch, parameters: the table that the article prints
    ("InputLayer", (32, 32, 3), 0),
    ("Conv2D", (32, 32, 64), 256),
    ("BatchNormalization", (32, 32, 64), 256),
    ("Activation", (32, 32, 64), 0),
    ("Conv2D", (30, 30, 64), 36928),
    ("BatchNormalization", (30, 30, 64), 256),
    ("Activation", (30, 30, 64), 0),
    ("Conv2D", (26, 26, 64), 102464),
    ("BatchNormalization", (26, 26, 64), 256),
    ("Activation", (26, 26, 64), 0),
    ("Dropout", (26, 26, 64), 0),
    ("MaxPooling2D", (13, 13, 64), 0),
    ("Conv2D", (13, 13, 128), 8320),
    ("BatchNormalization", (13, 13, 128), 512),
    ("Activation", (13, 13, 128), 0),
    ("Conv2D", (11, 11, 128), 147584),
    ("BatchNormalization", (11, 11, 128), 512),
    ("Activation", (11, 11, 128), 0),
    ("Conv2D", (7, 7, 128), 409728),
    ("BatchNormalization", (7, 7, 128), 512),
    ("Activation", (7, 7, 128), 0),
    ("Dropout", (7, 7, 128), 0),
    ("Conv2D", (7, 7, 256), 33024),
    ("BatchNormalization", (7, 7, 256), 1024),
    ("Activation", (7, 7, 256), 0),
    ("Conv2D", (5, 5, 256), 590080),
    ("BatchNormalization", (5, 5, 256), 1024),
    ("Activation", (5, 5, 256), 0),
    ("Conv2D", (1, 1, 256), 1638656),
    ("BatchNormalization", (1, 1, 256), 1024),
    ("Activation", (1, 1, 256), 0),
    ("Dropout", (1, 1, 256), 0),
    ("Flatten", (256,), 0),
    ("Dense", (10,), 2570),
]


def test_final_network_is_the_articles_layer_by_layer():
    model = build_model(ABLATIONS["06_final"])
    layers = [(type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params()) for layer in model.layers]
    assert layers == ARTICLE
    assert model.count_params() == 2_974_986
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert (trainable, model.count_params() - trainable) == (2_972_298, 2_688)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_experiment_has_ten_weighted_layers_and_its_dropout(name):
    experiment = ABLATIONS[name]
    model = build_model(experiment)
    kernels = [layer.kernel_size[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == list(experiment.kernel_sizes) * 3
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == ([experiment.dropout] * 3 if experiment.dropout else [])
    assert model.output_shape == (None, 10)


def test_layers_are_stock_keras():
    assert all(type(layer).__module__.startswith("keras.") for layer in build_model(ABLATIONS["06_final"]).layers)


def test_initial_weights_are_a_function_of_the_seed(small_experiment):
    first, again, other = (build_model(small_experiment, seed=seed).get_weights() for seed in (7, 7, 8))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    kernels = [weights for weights in first if weights.ndim == 4]
    assert not np.array_equal(kernels[0].ravel()[:12], kernels[1].ravel()[:12])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_statistics_and_softmax_in_float32(small_experiment, precision):
    before = keras.config.dtype_policy().name
    model = build_model(small_experiment, precision=precision)
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.weights} == {"float32"}
    assert model.layers[-1].compute_dtype == "float32"
    assert model.layers[1].compute_dtype == precision.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == before
    probabilities = model(np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32))
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    np.testing.assert_allclose(np.sum(keras.ops.convert_to_numpy(probabilities), axis=1), 1, atol=1e-5)


def test_dropout_is_a_function_of_seed_epoch_and_layer(small_experiment):
    experiment = replace(small_experiment, dropout=0.5)
    model = build_model(experiment)

    def masks(seed, epoch):
        reseed_dropout(model, seed, epoch)
        dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        ones = np.ones((4, 8, 8, 4), dtype=np.float32)
        return [keras.ops.convert_to_numpy(layer(ones, training=True)) for layer in dropouts]

    first, again, epoch, seed = masks(0, 1), masks(0, 1), masks(0, 2), masks(1, 1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != first[1]).any()
    assert (first[0] != epoch[0]).any()
    assert (first[0] != seed[0]).any()


def test_keras_default_of_another_image_format_changes_nothing():
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    expected = build_model(ABLATIONS["06_final"])
    try:
        keras.config.set_image_data_format("channels_first")
        model = build_model(ABLATIONS["06_final"])
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(model.predict(images, verbose=0), expected.predict(images, verbose=0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("floatx", "float16"), ("floatx", "float64"), ("epsilon", 1e-3), ("max_epochs", 1), ("max_steps_per_epoch", 2)],
)
def test_other_numbers_of_keras_are_refused_by_name(name, value):
    if not hasattr(keras.config, name):
        pytest.skip(f"this Keras has no {name}")
    before = getattr(keras.config, name)()
    try:
        getattr(keras.config, f"set_{name}")(value)
        with pytest.raises(Error, match=f"Keras's {name} is {value!r}"):
            build_model(ABLATIONS["06_final"])
    finally:
        getattr(keras.config, f"set_{name}")(before)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a setting of JAX")
def test_64_bits_under_jax_are_refused():
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(Error, match="unset JAX_ENABLE_X64"):
            build_model(ABLATIONS["06_final"])
    finally:
        jax.config.update("jax_enable_x64", False)


def test_value_that_no_file_can_hold_is_refused():
    with pytest.raises(Error, match="cannot hold a value of type float8"):
        read_arrays([keras.Variable(np.ones(3, np.float32), dtype="float8_e4m3fn")])
