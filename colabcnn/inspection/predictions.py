"""Predictions of a run's best weights, on its validation images and on your own picture."""

import contextlib
import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from PIL import Image, UnidentifiedImageError

from colabcnn.data.cifar10 import CLASS_NAMES
from colabcnn.data.split import load_split
from colabcnn.errors import Error
from colabcnn.experiments.experiment import IMAGE_SIZE, NUM_CLASSES
from colabcnn.inspection.weights import check_data_name, open_best
from colabcnn.network.keras_types import ops
from colabcnn.store.run_list import run_labels
from colabcnn.viewing.curves import COLOURS, Picture, png_of, shortened

BATCH_SIZE = 250
COLUMNS, ROWS = 5, 5
# From this share on, white text has more contrast on the colour map "Blues" than black; the contrast is at least 4.5.
WHITE_FROM = 0.715
# A displayed picture keeps at least so many pixels on its longer side; a photo's 12 million take long to draw.
SHOWN_SIZE = 512


@dataclass(frozen=True)
class Prediction:
    """A network's prediction for a picture; a notebook shows its figure.

    Args:
        class_name: the most probable class.
        probabilities: dict from class name to float in [0, 1], the most probable first; they sum to 1.
        figure: `matplotlib.figure.Figure`: the picture, the part that the network sees, and the probabilities.
    """

    class_name: str
    probabilities: dict[str, float]
    figure: Picture = field(repr=False)

    def _repr_png_(self):
        return png_of(self.figure)


def plot_confusion(run_dir: str | Path, data: str | Path | None = None) -> Picture:
    """Draw the confusion matrix of a run's best weights on its validation images.

    Args:
        run_dir: the run's folder; the run may still be training.
        data: None takes the run's own; for a run on CIFAR-10 it may be the folder of CIFAR-10.

    Returns:
        A `matplotlib.figure.Figure`: rows are true classes, columns predicted ones; a cell shows the number of images,
        its colour shows their share of the true class.

    Raises:
        Error: there is no run in that folder, no checkpoint of it, no data, or other data than the run's.
    """
    heading, _, labels, probabilities = _validated(run_dir, data)
    counts = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    # Among few validation images, a class may be missing.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Picture(figsize=(7.6, 6.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] >= WHITE_FROM else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(NUM_CLASSES), CLASS_NAMES, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(NUM_CLASSES), CLASS_NAMES)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="share of the true class", shrink=0.8).outline.set_visible(False)
    right, total = np.trace(counts), len(labels)
    figure.suptitle(f"{heading}\nright on {right:,} of {total:,} images, accuracy {right / total:.4f}", fontsize=10)
    return figure


def plot_mistakes(run_dir: str | Path, data: str | Path | None = None) -> Picture:
    """Draw the most confident mistakes of a run's best weights on its validation images.

    Args:
        run_dir: the run's folder; the run may still be training.
        data: as in `plot_confusion`.

    Returns:
        A `matplotlib.figure.Figure` of 25 images at most, the most confident mistake first, each with its true class,
        the predicted class and its probability.

    Raises:
        Error: as `plot_confusion`.
    """
    heading, images, labels, probabilities = _validated(run_dir, data)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    mistakes = np.flatnonzero(predicted != labels)
    shown = mistakes[np.argsort(-confidence[mistakes], kind="stable")][: ROWS * COLUMNS]
    part = f", the {len(shown)} most confident" if len(shown) < len(mistakes) else ""
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Picture(figsize=(10, 0.8 + 2.2 * rows), layout="constrained")
    figure.suptitle(f"{heading}\nwrong on {len(mistakes):,} of {len(labels):,} images{part}", fontsize=10)
    if not len(shown):
        figure.text(
            0.5, 0.4, "There is no mistake to show: every image is classified correctly.", ha="center", fontsize=12
        )
        return figure
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, shown, strict=False):
        axes.imshow(images[index])
        true_class, predicted_class = CLASS_NAMES[labels[index]], CLASS_NAMES[predicted[index]]
        axes.set_title(f"true: {true_class}\npredicted: {predicted_class}, {confidence[index]:.2f}", fontsize=8)
    return figure


def predict(
    run_dir: str | Path, picture: str | os.PathLike | bytes | Image.Image | np.ndarray, true_class: int | None = None
) -> Prediction:
    """Classify a picture with a run's best weights.

    Args:
        run_dir: the run's folder; the run may still be training. Or a name, as for `load_model`.
        picture: the path or the bytes of an image file, a PIL image, or an array `(h, w)`, `(h, w, 3)` or
            `(h, w, 4) uint8`, of any size. A photo is turned upright, transparent parts become white, and the square in
            the middle is resized to `(32, 32, 3)`.
        true_class: the picture's class, as `load_data` numbers them; written above the picture. None: not known.

    Returns:
        A `Prediction`.

    Raises:
        Error: the picture cannot be read; there is no such class; there is no run in that folder, or it has no
            checkpoint.
    """
    if true_class is not None and true_class not in range(len(CLASS_NAMES)):
        raise Error(
            f"true_class is {true_class!r}; expected the number of a class, 0 to {len(CLASS_NAMES) - 1}, or None."
        )
    image = _open_picture(picture)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    seen = image.crop((left, top, left + side, top + side)).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    folder, _, epoch, network = open_best(run_dir)
    (values,) = class_probabilities(network, np.asarray(seen)[None])
    probabilities = {CLASS_NAMES[index]: float(values[index]) for index in np.argsort(-values, kind="stable")}
    is_seen_completely = image.size == seen.size  # A second picture would be the same.
    figure = Picture(figsize=(7 if is_seen_completely else 10, 3.5), layout=ConstrainedLayoutEngine(w_pad=0.12))
    true_line = "" if true_class is None else f"\nThe true class is {CLASS_NAMES[true_class]}."
    figure.suptitle(_heading(folder, epoch) + true_line, fontsize=10)
    *given_axes, seen_axes, bars_axes = figure.subplots(1, 2 if is_seen_completely else 3)
    for axes in given_axes:
        _draw_given(axes, image, left, top, side)
    seen_axes.imshow(seen)
    seen_axes.set_title(f"what the network sees, {IMAGE_SIZE} x {IMAGE_SIZE}", fontsize=9)
    seen_axes.set_axis_off()
    _draw_bars(bars_axes, probabilities)
    return Prediction(next(iter(probabilities)), probabilities, figure)


def _validated(run_dir, data):
    """Return `(heading, images, labels, probabilities)` of the run's validation images, by its best weights."""
    folder, record, epoch, network = open_best(run_dir)
    check_data_name(folder, record, data)
    split = load_split(
        data or record.data, train_size=record.train_size, val_size=record.val_size, holdout=record.holdout
    )
    if (found := split.digest()) != record.data_sha256:
        raise Error(
            f"{record.data} gives images with the SHA-256 {found[:16]}..., expected those of {folder.path}, "
            f"{record.data_sha256[:16]}...; use the version of colabcnn that its run.json names."
        )
    return _heading(folder, epoch), split.val_images, split.val_labels, class_probabilities(network, split.val_images)


def _heading(folder, epoch):
    return f"{shortened(run_labels([folder.path])[0], 60)}, epoch {epoch}"


def class_probabilities(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return `(n, 10) float32` for images `(n, 32, 32, 3) uint8`."""
    # Each call of `predict` builds a new network; TensorFlow would warn about compiling it again and again.
    compute = network.predict_on_batch if keras.backend.backend() == "jax" else network
    batches = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
    return np.concatenate([ops.convert_to_numpy(compute(batch.astype(np.float32) / 255)) for batch in batches])


def _open_picture(picture):
    """Return the picture, of any accepted type, as an upright RGB `PIL.Image.Image`."""
    name, source = _source(picture)
    with warnings.catch_warnings(action="ignore"):  # A picture with broken EXIF data, for example, can still be used.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with contextlib.nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
                return _in_rgb(_upright(image))
        except FileNotFoundError:
            raise Error(
                f"{name} is missing; expected the path of a picture: give its full path. In Colab upload it first, in "
                "each session again, with the folder symbol on the left."
            ) from None
        except UnidentifiedImageError:
            reason = "is not an image file that Pillow can read"
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            reason = f"has too many pixels, {Image.MAX_IMAGE_PIXELS:,} at most are read"
        except Exception as error:  # For a broken file, Pillow's readers raise nearly any exception.
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    raise Error(f"{name} {reason}; expected a picture such as PNG or JPEG: give another, or save it as one of these.")


def _source(picture):
    """Return the picture's name for a message, and a path, a file or a `PIL.Image.Image`."""
    if isinstance(picture, (str, os.PathLike)):
        return str(picture), os.path.expanduser(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return f"a file of {len(picture)} bytes", io.BytesIO(picture)
    if isinstance(picture, Image.Image):
        return f"the image of mode {picture.mode}", picture
    if not hasattr(picture, "__array__"):
        raise Error(
            f"the picture is a {type(picture).__name__}; expected the path or the bytes of an image file, a PIL image, "
            "or an array of uint8; give one of these."
        )
    array = np.asarray(picture)
    if array.dtype != np.uint8 or not array.size or not (array.ndim == 2 or array.shape[2:] in ((3,), (4,))):
        raise Error(
            f"the picture is an array {array.shape} of {array.dtype}; expected (h, w), (h, w, 3) or (h, w, 4) of "
            "uint8: give one picture, scaled to 0 to 255 and converted by `.astype('uint8')`."
        )
    return "the array", Image.fromarray(array)


# By EXIF orientation.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image):
    """Return a picture turned by its EXIF orientation; `ImageOps.exif_transpose` fails at other odd EXIF values."""
    image.load()  # Pillow turns a TIFF here, and then takes its orientation away.
    try:
        method = _TO_UPRIGHT.get(image.getexif().get(0x0112))
    except Exception:
        method = None
    return image if method is None else image.transpose(method)


def _in_rgb(image):
    if 0 in image.size:
        raise ValueError("it has no pixels")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range")
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535)
        # Pillow would clip 16 bits at 255, and nearly all pixels would be white. Mode I may hold 8 bits, too.
        is_8_bit = image.mode == "I" and values.max() <= 255
        image = Image.fromarray((values if is_8_bit else values // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _draw_given(axes, image, left, top, side):
    axes.imshow(image.reduce(max(1, max(image.size) // SHOWN_SIZE)), extent=(0, image.width, image.height, 0))
    if image.width != image.height:
        axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=COLOURS[1], linewidth=2))
    axes.set_title(f"the picture, {image.width} x {image.height}", fontsize=9)
    axes.set_axis_off()


def _draw_bars(axes, probabilities):
    names = list(probabilities)
    bars = axes.barh(names, list(probabilities.values()), color=[COLOURS[0]] + [COLOURS[5]] * (len(names) - 1))
    axes.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.15), xticks=(0, 0.5, 1), xlabel="probability")
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{names[0]}, {probabilities[names[0]]:.2f}", fontsize=9)
