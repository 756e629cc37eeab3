"""`augment` changes each image like Keras's `ImageDataGenerator.apply_transform`."""

from functools import partial

import keras
import numpy as np
import pytest

from colabcnn import Error, augment
from colabcnn.network.augmentation import cut_out

pytestmark = pytest.mark.versions

NAMES = ("rotation", "row_shift", "column_shift", "flip", "channel_shift")


def random_transforms(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "rotation": rng.uniform(-20, 20, count).astype(np.float32),
        "row_shift": rng.uniform(-6.4, 6.4, count).astype(np.float32),
        "column_shift": rng.uniform(-6.4, 6.4, count).astype(np.float32),
        "flip": rng.random(count) < 0.5,
        "channel_shift": rng.uniform(-50, 50, count).astype(np.float32),
    }


def by_keras(images, transforms, fill_mode="nearest"):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(fill_mode=fill_mode)
    transformed = [
        generator.apply_transform(
            image.astype(np.float32),
            {
                "theta": rotation,
                "ty": row_shift,  # In Keras 3 `ty` moves along rows and `tx` along columns.
                "tx": column_shift,
                "flip_horizontal": flip,
                "channel_shift_intensity": channel_shift,
            },
        )
        for image, rotation, row_shift, column_shift, flip, channel_shift in zip(
            images, *(transforms[name] for name in NAMES), strict=True
        )
    ]
    return np.stack(transformed)


def compiled(xla, function=augment):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=xla)


@pytest.mark.parametrize("mode", ["eager", "compiled", "xla"])
def test_augment_equals_keras_on_real_images(real_images, mode):
    transforms = random_transforms(len(real_images))
    function = augment if mode == "eager" else compiled(xla=mode == "xla")
    ours = keras.ops.convert_to_numpy(function(real_images, **transforms))
    assert ours.dtype == np.float32
    assert len(real_images) >= 1000
    assert np.abs(ours - by_keras(real_images, transforms)).max() <= 0.01


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_augment_equals_keras_on_noise_of_both_types(dtype):
    images = np.random.default_rng(1).integers(0, 256, (64, 32, 32, 3)).astype(dtype)
    transforms = random_transforms(64, seed=2)
    ours = keras.ops.convert_to_numpy(augment(images, **transforms))
    assert np.abs(ours - by_keras(images, transforms)).max() <= 0.01


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_mirrored_border_equals_keras_on_noise(mode):
    images = np.random.default_rng(3).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    transforms = random_transforms(64, seed=4)
    transforms["row_shift"] *= 6  # More than the image's height, so it is mirrored twice.
    function = partial(augment, fill_mode="reflect")
    ours = keras.ops.convert_to_numpy((compiled(True, function) if mode == "xla" else function)(images, **transforms))
    assert np.abs(ours - by_keras(images, transforms, "reflect")).max() <= 0.02


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TPUs are JAX's")
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
def test_tpu_computes_the_same_without_a_gather(monkeypatch, fill_mode):
    import jax

    images = np.random.default_rng(5).integers(0, 256, (16, 32, 24, 3)).astype(np.uint8)
    transforms = random_transforms(16, seed=6)

    def traced():
        function = partial(augment, fill_mode=fill_mode)  # A new one, as JAX keeps what it has traced.
        return function(images, **transforms), str(jax.make_jaxpr(function)(images, **transforms))

    expected, with_gathers = traced()
    monkeypatch.setattr("colabcnn.network.augmentation.is_tpu", lambda: True)
    pixels, program = traced()
    assert np.abs(pixels - expected).max() <= 0.001
    assert "gather" in with_gathers and "gather" not in program
    assert "HIGHEST" in program  # By itself a TPU multiplies in bfloat16.


def no_transforms(count, **changes):
    zeros = {name: np.zeros(count, dtype=bool if name == "flip" else np.float32) for name in NAMES}
    return {**zeros, **{name: np.full(count, value) for name, value in changes.items()}}


def one_dot():
    image = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    image[0, 10, 20] = 255
    return image


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({}, (10, 20)),
        ({"row_shift": 3.0}, (7, 20)),
        ({"column_shift": 3.0}, (10, 17)),
        ({"flip": True}, (10, 11)),
        ({"rotation": 90.0}, (11, 10)),
        ({"flip": True, "column_shift": 3.0}, (10, 14)),
    ],
)
def test_each_transform_moves_the_image_to_the_expected_place(change, place):
    moved = keras.ops.convert_to_numpy(augment(one_dot(), **no_transforms(1, **change)))[0, :, :, 0]
    assert np.unravel_index(moved.argmax(), moved.shape) == place


def test_channel_shift_is_clipped_to_the_images_own_range():
    image = np.random.default_rng(0).integers(50, 200, (1, 32, 32, 3)).astype(np.uint8)
    shifted = keras.ops.convert_to_numpy(augment(image, **no_transforms(1, channel_shift=30.0)))
    assert np.array_equal(shifted, np.minimum(image.astype(np.float32) + 30, image.max()))


def test_image_that_is_not_square_turns_about_its_centre():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 11, 3)).astype(np.uint8)
    turned = keras.ops.convert_to_numpy(augment(image, **no_transforms(1, rotation=180.0)))
    np.testing.assert_allclose(turned, image[:, ::-1, ::-1], atol=0.01)


def test_empty_batch_stays_empty():
    augmented = augment(np.zeros((0, 32, 32, 3), np.uint8), **no_transforms(0))
    assert (tuple(augmented.shape), keras.backend.standardize_dtype(augmented.dtype)) == ((0, 32, 32, 3), "float32")


def test_border_is_repeated_outside():
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    shifted = keras.ops.convert_to_numpy(augment(image, **no_transforms(1, row_shift=5.0)))
    assert np.array_equal(shifted[0, :27], image[0, 5:])
    assert np.array_equal(shifted[0, 27:], np.repeat(image[0, -1:], 5, axis=0))


def test_cutout_makes_a_square_grey_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 127, (3, 32, 32, 3)).astype(np.float32)
    row, column = np.array([10.3, 0.2, 31.0], "float32"), np.array([20.9, 31.9, 16.0], "float32")
    expected = images.copy()
    expected[0, 8:12, 19:23] = 127.5
    expected[1, :2, 30:] = 127.5  # The rest of it is outside.
    expected[2, 29:, 14:18] = 127.5
    assert np.array_equal(keras.ops.convert_to_numpy(cut_out(images, row=row, column=column, size=4)), expected)


def test_another_fill_mode_is_refused():
    with pytest.raises(Error, match="fill_mode is 'wrap'; expected one of 'nearest', 'reflect'"):
        augment(one_dot(), **no_transforms(1), fill_mode="wrap")


def test_border_is_mirrored_outside():
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    shifted = keras.ops.convert_to_numpy(augment(image, **no_transforms(1, row_shift=5.0), fill_mode="reflect"))
    assert np.array_equal(shifted[0], np.concatenate([image[0, 5:], image[0, :-6:-1]]))
