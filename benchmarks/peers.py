"""Other ways of training an epoch of 06_final, in common code, which `epoch.py` compares with ours.

Each function takes a `Split` and returns a callable that trains one more epoch and validates, and may return the
seconds that count; with the same network, batch size and Adam.
"""

import warnings
from typing import Any

import keras
import numpy as np

from colabcnn import ABLATIONS, Augmentation, build_model, plan_epoch
from colabcnn.network.training_model import VALIDATION_BATCH_SIZE
from recording import Clock

EXPERIMENT = ABLATIONS["06_final"]
BATCH_SIZE, RANGES = EXPERIMENT.batch_size, EXPERIMENT.augmentation or Augmentation()


def keras_fit(split, precision="float32", batches=None):
    """(c) Keras's `fit` on float images in memory, without augmentation; `batches` replaces the images."""
    model = build_model(EXPERIMENT, precision=precision)
    optimizer = keras.optimizers.Adam(EXPERIMENT.optimizer.learning_rate)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = scaled(split.val_images), split.val_labels
    data = {"x": scaled(split.train_images), "y": split.train_labels, "batch_size": BATCH_SIZE}
    data = data if batches is None else {"x": batches}
    clock = Clock()

    def epoch(callbacks=()):
        model.fit(
            **data,
            validation_data=validation,
            validation_batch_size=VALIDATION_BATCH_SIZE,
            callbacks=[*callbacks, clock],
            verbose=0,  # pyright: ignore[reportArgumentType]  # Its default is "auto", a text.
        )
        return clock.seconds

    return epoch


def keras_generator(split):
    """(a) The article's pipeline: `fit` on `ImageDataGenerator.flow`."""
    flow = generator().flow(split.train_images.astype(np.float32), split.train_labels, batch_size=BATCH_SIZE)
    return keras_fit(split, batches=flow)


def keras_random_layers(split):
    """(b) `fit` on a `tf.data` pipeline of Keras's random layers, with the article's ranges."""
    import tensorflow as tf

    shifts = RANGES.height_shift_range, RANGES.width_shift_range
    layers = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(RANGES.rotation_range / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(*shifts, fill_mode="nearest"),
            keras.layers.RandomBrightness(RANGES.channel_shift_range / 255, value_range=(0, 1)),
        ]
    )
    data = tf.data.Dataset.from_tensor_slices((split.train_images, split.train_labels))
    data = data.shuffle(len(split.train_labels)).batch(BATCH_SIZE)
    data = data.map(lambda images, labels: (layers(images, training=True), labels), num_parallel_calls=tf.data.AUTOTUNE)
    return keras_fit(split, batches=data.prefetch(tf.data.AUTOTUNE))


def _jax_network(precision):
    """Return the network's weights, its moving statistics, and a function that applies it."""
    import jax
    import jax.numpy as jnp

    # float16 would need a scaled loss.
    compute = {"float32": jnp.float32, "mixed_bfloat16": jnp.bfloat16}[precision]
    network = build_model(EXPERIMENT)
    arrays = [jnp.asarray(weight) for weight in network.get_weights()]
    sets, kernels = len(EXPERIMENT.filters), len(EXPERIMENT.kernel_sizes)
    # In the order of `get_weights`: for each convolution kernel, bias, gamma, beta, moving mean, moving variance.
    convolutions = [arrays[6 * index : 6 * index + 6] for index in range(sets * kernels)]
    weights = [c[:4] for c in convolutions], arrays[-2:]
    statistics = [c[4:] for c in convolutions]

    def forward(weights, statistics, images, key=None):
        x, new_statistics = images.astype(compute), []
        for index, ((kernel, bias, gamma, beta), (mean, variance)) in enumerate(
            zip(weights[0], statistics, strict=True)
        ):
            kernel = kernel.astype(compute)
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = (x + bias.astype(compute)).astype(jnp.float32)
            if key is not None:
                batch_mean, batch_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                new_statistics.append([0.99 * mean + 0.01 * batch_mean, 0.99 * variance + 0.01 * batch_variance])
                mean, variance = batch_mean, batch_variance
            x = jax.nn.relu((x - mean) * (gamma * jax.lax.rsqrt(variance + 1e-3)) + beta).astype(compute)
            if (index + 1) % kernels == 0:
                if key is not None:
                    kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - EXPERIMENT.dropout, x.shape)
                    x = jnp.where(kept, x / (1 - EXPERIMENT.dropout), 0).astype(compute)
                if index + 1 == kernels:
                    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        kernel, bias = weights[1]
        return x.reshape(len(x), -1).astype(jnp.float32) @ kernel + bias, new_statistics

    return weights, statistics, forward


def _jax_validation(forward):
    """Return a function that takes weights and statistics, images and labels; it returns the accuracy."""
    import jax

    @jax.jit
    def validate(state, images, labels):
        def right(batch):
            part, label = batch
            return (forward(*state, part / 255.0)[0].argmax(-1) == label).sum()

        count = min(VALIDATION_BATCH_SIZE, len(labels))
        batches = [values.reshape(len(labels) // count, count, *values.shape[1:]) for values in (images, labels)]
        return jax.lax.map(right, batches).sum() / len(labels)

    return validate


def plain_jax(split, precision="float32"):
    """(d) A step without Keras: one jitted function an epoch, a scan over its steps, optax, the same augmentation."""
    import jax
    import jax.numpy as jnp
    import optax  # pyright: ignore[reportMissingImports]  # A peer's, not the tests'.

    from colabcnn import augment

    weights, statistics, forward = _jax_network(precision)
    validate = _jax_validation(forward)
    optimizer = optax.adam(EXPERIMENT.optimizer.learning_rate, eps=1e-7)

    def loss_of(weights, statistics, images, labels, key):
        logits, new_statistics = forward(weights, statistics, images, key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (new_statistics, (logits.argmax(-1) == labels).sum())

    def one_step(carried, rows_and_transforms):
        weights, statistics, state, key, images, labels = carried
        rows, transforms = rows_and_transforms
        key, step_key = jax.random.split(key)
        batch = augment(images[rows], **transforms) / 255
        (loss, (statistics, right)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            weights, statistics, batch, labels[rows], step_key
        )
        updates, state = optimizer.update(gradients, state, weights)
        return (optax.apply_updates(weights, updates), statistics, state, key, images, labels), (loss, right)

    size = len(split.train_labels)
    full = size // BATCH_SIZE * BATCH_SIZE
    # On a CPU, XLA runs a convolution within a loop in one thread only.
    unrolled = size // BATCH_SIZE if jax.devices()[0].platform == "cpu" else 1

    @jax.jit
    def train(state, images, labels, plan):
        shaped = jax.tree.map(lambda values: values[:full].reshape(-1, BATCH_SIZE, *values.shape[1:]), plan)
        carried, metrics = jax.lax.scan(one_step, (*state, images, labels), shaped, unroll=unrolled)
        if full < size:
            carried, _ = one_step(carried, jax.tree.map(lambda values: values[full:], plan))
        return carried[:4], metrics

    resident = jnp.asarray(split.train_images), jnp.asarray(split.train_labels)
    validation = jnp.asarray(split.val_images), jnp.asarray(split.val_labels)
    state = [(weights, statistics, optimizer.init(weights), jax.random.key(0))]
    done = [0]

    def epoch():
        done[0] += 1
        plan = plan_epoch(0, done[0], size=size, augmentation=EXPERIMENT.augmentation)
        transforms = {name: jnp.asarray(values, jnp.float32) for name, values in plan.transforms.items()}
        state[0], metrics = train(state[0], *resident, (jnp.asarray(plan.rows), transforms))
        float(validate(state[0][:2], *validation))
        np.asarray(metrics[0])

    return epoch


def _torch_network():
    """Return the network."""
    from torch import nn  # pyright: ignore[reportMissingImports]  # A peer's, not the tests'.

    layers, channels, size = [], 3, 32
    for number, filters in enumerate(EXPERIMENT.filters):
        for kernel_size in EXPERIMENT.kernel_sizes:
            layers += [nn.Conv2d(channels, filters, kernel_size), nn.BatchNorm2d(filters, 1e-3, 0.01), nn.ReLU()]
            channels, size = filters, size - kernel_size + 1
        layers.append(nn.Dropout(EXPERIMENT.dropout))
        if number == 0:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, 10))


def plain_torch(split, precision="float32", *, compiled=False):
    """(e) PyTorch: channels last, autocast, its usual augmentation (a padded shift and the mirroring) on the device."""
    import torch  # pyright: ignore[reportMissingImports]  # A peer's, not the tests'.
    from torch.nn import functional  # pyright: ignore[reportMissingImports]  # A peer's, not the tests'.

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # The usual setting for speed on a GPU; XLA tries its kernels, too.
    dtype = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(precision)
    network: Any = _torch_network()  # PyTorch's types do not know the format.
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), EXPERIMENT.optimizer.learning_rate, eps=1e-7)

    def on_device(images):
        images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        return images.to(device).contiguous(memory_format=torch.channels_last)

    images, labels = on_device(split.train_images), torch.from_numpy(split.train_labels).to(device)
    val_images, val_labels = on_device(split.val_images), torch.from_numpy(split.val_labels).to(device)
    steps = torch.arange(32, device=device)

    def augmented(batch):
        count = len(batch)
        padded = functional.pad(batch.float(), (4, 4, 4, 4), mode="reflect")
        down, right = (torch.randint(0, 9, (count, 1), device=device) + steps for _ in range(2))
        mirrored = torch.rand(count, 1, device=device) < 0.5
        right = torch.where(mirrored, right.flip(1), right)
        picked = padded.permute(0, 2, 3, 1)[
            torch.arange(count, device=device)[:, None, None], down[:, :, None], right[:, None]
        ]
        return picked.permute(0, 3, 1, 2) / 255

    def forward(batch):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return network(batch)

    forward = torch.compile(forward) if compiled else forward

    def epoch():
        network.train()
        order = torch.randperm(len(labels), device=device)
        for rows in order.split(BATCH_SIZE):
            loss = functional.cross_entropy(forward(augmented(images[rows])).float(), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = sum(
                (forward(part.float() / 255).argmax(1) == label).sum()
                for part, label in zip(
                    val_images.split(VALIDATION_BATCH_SIZE), val_labels.split(VALIDATION_BATCH_SIZE), strict=True
                )
            )
        float(right)

    return epoch


def generator():
    """Return the article's `ImageDataGenerator`."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    warnings.filterwarnings("ignore", message=".*scipy.ndimage.interpolation.*")
    names = ("rotation_range", "width_shift_range", "height_shift_range", "horizontal_flip", "channel_shift_range")
    return ImageDataGenerator(rescale=1 / 255, **{name: getattr(RANGES, name) for name in names})


def scaled(images):
    """Return images of uint8 as float32 in [0, 1]."""
    return images.astype(np.float32) / 255
