"""Arrays in the form in which Keras is given them."""

import keras


def in_batches(*arrays, batch_size):
    """Return the keyword arguments with which `fit` and `evaluate` take arrays in order, in batches.

    Under TensorFlow that is a `tf.data.Dataset` without autotuning. Of plain arrays Keras makes one with it, and
    TensorFlow (2.20, 2.21) then ends a `fit` by waiting for a thread that sleeps: up to as long as training has taken,
    a minute at most.

    Args:
        arrays: of one length: inputs, then labels if there are any.
        batch_size: items a batch.
    """
    if keras.backend.backend() != "tensorflow":
        return {**dict(zip("xy", arrays, strict=False)), "batch_size": batch_size}
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return {"x": tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size).with_options(options)}
