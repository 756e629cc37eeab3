"""`augment`, compiled, against Keras's `ImageDataGenerator.flow`: python benchmarks/augmentation.py [FOLDER]

FOLDER holds the official CIFAR-10 files; without it the images are drawn by code. KERAS_BACKEND chooses the backend.
"""

import sys
import warnings

import keras
import numpy as np

from colabcnn import ABLATIONS, augment, plan_epoch
from colabcnn.data import load_data
from pairs import compare, describe

IMAGES, BATCH_SIZE = 2048, 128


def main():
    warnings.filterwarnings("ignore", message=".*scipy.ndimage.interpolation.*")
    (images, labels), _ = load_data(sys.argv[1] if len(sys.argv) > 1 else "synthetic", size=IMAGES)
    images, labels = images[:IMAGES], labels[:IMAGES]
    augmentation = ABLATIONS["06_final"].augmentation
    plan = plan_epoch(0, 1, size=IMAGES, augmentation=augmentation)
    batches = [slice(start, start + BATCH_SIZE) for start in range(0, IMAGES, BATCH_SIZE)]
    flow = generator(augmentation).flow(images.astype(np.float32), labels, batch_size=BATCH_SIZE)
    describe()
    for name, function in compiled().items():

        def ours(function=function):
            for batch in batches:
                transforms = {name: values[batch] for name, values in plan.transforms.items()}
                np.asarray(function(images[plan.rows[batch]], **transforms))

        def by_keras():
            for _ in batches:
                next(flow)

        compare(f"augment, {name}", ours, "ImageDataGenerator.flow", by_keras, images=IMAGES)


def compiled():
    """Return `augment` compiled, by name, as the backend does it."""
    if keras.backend.backend() == "jax":
        import jax

        return {"jax.jit": jax.jit(augment)}
    import tensorflow as tf

    return {"tf.function": tf.function(augment), "tf.function with XLA": tf.function(augment, jit_compile=True)}


def generator(augmentation):
    """Return the article's generator."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=augmentation.rotation_range,
        width_shift_range=augmentation.width_shift_range,
        height_shift_range=augmentation.height_shift_range,
        horizontal_flip=augmentation.horizontal_flip,
        channel_shift_range=augmentation.channel_shift_range,
    )


if __name__ == "__main__":
    main()
