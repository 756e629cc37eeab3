"""The network, made of Keras's own layers."""

import itertools
from typing import Any

import keras
import numpy as np

from colabcnn.errors import Error
from colabcnn.experiments.experiment import IMAGE_SIZE, NUM_CLASSES, Experiment


def build_model(experiment: Experiment, *, seed: int = 0, precision: str = "float32") -> keras.Model:
    """Build an experiment's network.

    Sets of convolutions without padding, each followed by BatchNorm and ReLU; dropout at the end of each set; one 2x2
    max pooling after the first set; then a dense softmax. Settings that the experiment does not have are Keras's
    defaults.

    Args:
        experiment: `Experiment`.
        seed: int; the initial weights are a function of it and of the layer.
        precision: "float32", "mixed_bfloat16" or "mixed_float16": the layers' dtype policy. Variables, the softmax and
            BatchNorm's statistics stay float32. Keras's global policy is not changed.

    Returns:
        A `keras.Model` from `(batch, 32, 32, 3) float32` in [0, 1] to `(batch, 10) float32` probabilities.

    Raises:
        Error: a global setting of Keras that would change the result is not its default.
    """
    _check_keras_settings()
    policy = keras.DTypePolicy(precision)
    # ~/.keras/keras.json may have another default format.
    of_images: dict[str, Any] = {"dtype": policy, "data_format": "channels_last"}
    layer_number = itertools.count()

    def initializer() -> Any:  # Keras infers `str` from its default.
        layer_seed = np.random.SeedSequence([seed, next(layer_number)]).generate_state(1)
        return keras.initializers.GlorotUniform(seed=int(layer_seed[0]))

    x = images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), dtype="float32", name="images")
    for set_number, filters in enumerate(experiment.filters, start=1):
        for number, kernel_size in enumerate(experiment.kernel_sizes, start=1):
            place = f"{set_number}_{number}"
            x = keras.layers.Conv2D(
                filters, kernel_size, kernel_initializer=initializer(), name=f"conv_{place}", **of_images
            )(x)
            x = keras.layers.BatchNormalization(
                momentum=experiment.batch_norm_momentum, dtype=policy, name=f"batch_norm_{place}"
            )(x)
            x = keras.layers.Activation("relu", dtype=policy, name=f"relu_{place}")(x)
        if experiment.dropout > 0:
            # `reseed_dropout` sets the state; this seed only stops Keras from using its global generator.
            x = keras.layers.Dropout(experiment.dropout, seed=set_number, dtype=policy, name=f"dropout_{set_number}")(x)
        if set_number == 1 and len(experiment.filters) > 1:
            x = keras.layers.MaxPooling2D(2, name="max_pooling", **of_images)(x)
    x = keras.layers.Flatten(name="flatten", **of_images)(x)
    probabilities = keras.layers.Dense(
        NUM_CLASSES, activation="softmax", kernel_initializer=initializer(), dtype="float32", name="probabilities"
    )(x)
    # The name is not the experiment's: under TensorFlow a model's name may not begin with a digit.
    model = keras.Model(images, probabilities, name="cnn")
    if experiment.initializer == "dirac":
        # A custom initializer would stop plain Keras from opening the model's file without this library.
        convolutions: list[Any] = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        for layer in convolutions:
            layer.kernel.assign(_with_dirac_filters(keras.ops.convert_to_numpy(layer.kernel)))
    return model


def _check_keras_settings():
    """Refuse global settings of Keras and JAX that would change what a run computes."""
    expected_values = {"floatx": "float32", "epsilon": 1e-7, "max_epochs": None, "max_steps_per_epoch": None}
    for name, expected in expected_values.items():
        found = getattr(keras.config, name, lambda: None)()  # Keras 3.13 has no `max_epochs`.
        if found != expected:
            raise Error(
                f"Keras's {name} is {found!r}; expected {expected!r}: call keras.config.set_{name}({expected!r}), and "
                "look into ~/.keras/keras.json and the environment."
            )
    if keras.backend.backend() == "jax":
        import jax

        if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]  # Added at run time.
            raise Error(
                "JAX's jax_enable_x64 is on, which changes dropout; expected it off: unset JAX_ENABLE_X64, or call "
                'jax.config.update("jax_enable_x64", False).'
            )


def _with_dirac_filters(kernel):
    """Return a kernel, `(height, width, channels, filters)`, whose first filters copy one channel each."""
    height, width, channels, filters = kernel.shape
    copied = min(channels, filters)
    kernel = kernel.copy()
    kernel[..., :copied] = 0
    kernel[height // 2, width // 2, range(copied), range(copied)] = 1
    return kernel


def reseed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Set each dropout layer's random state from `(seed, epoch, layer)`, so that a resume need not restore it.

    Args:
        model: as `build_model` made it; changed in place.
        seed: int, the run's.
        epoch: int from 1.
    """
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    for index, layer in enumerate(dropouts):
        layer.seed_generator.state.assign(np.random.SeedSequence([seed, epoch, index]).generate_state(2))
