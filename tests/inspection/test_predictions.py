"""The pictures show the predictions of a run's best weights, for validation images and for any other image."""

import dataclasses
import io
import re
import struct
from dataclasses import replace

import keras
import matplotlib.pyplot
import numpy as np
import pytest
from PIL import Image

from colabcnn import CLASS_NAMES, Error, load_model, run, status
from colabcnn.data.split import load_data, split_data
from colabcnn.inspection.predictions import WHITE_FROM, plot_confusion, plot_mistakes, predict
from colabcnn.store.checkpoint import newest_checkpoint, write_checkpoint
from support.shared_files import EXPERIMENT, OPTIONS

pytestmark = pytest.mark.versions

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)


class SpoilThirdEpochAndStop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.network.set_weights([np.zeros_like(weight) for weight in self.model.network.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An unfinished run whose last weights are not its best; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "small" / "seed-0"
    run(EXPERIMENT, folder, epochs=5, callbacks=[SpoilThirdEpochAndStop()], **OPTIONS)
    trained_status = status(folder)
    assert not trained_status["complete"]
    assert trained_status["best_epoch"] < trained_status["epoch"] == 3
    return folder


@pytest.fixture(scope="module")
def validation():
    """The images and labels that `trained` validates on."""
    images, labels = load_data("synthetic", size=1, test_size=40)[1]
    return images, labels


@pytest.fixture
def altered(trained, tmp_path):
    """Return a function that copies `trained` with other fields, and can let it always predict the same class."""

    def altered(always=None, **fields):
        checkpoint, _ = newest_checkpoint(trained / "checkpoints")
        best = [array.copy() for array in checkpoint.arrays["best"]]
        if always is not None:
            best[-1][CLASS_NAMES.index(always)] = 100
        recorded = {**checkpoint.metadata["run"], **fields}
        if "data_sha256" not in fields:
            recorded["data_sha256"] = split_of(recorded).digest()
        arrays, metadata = {**checkpoint.arrays, "best": best}, {**checkpoint.metadata, "run": recorded}
        (tmp_path / "altered").mkdir(exist_ok=True)
        write_checkpoint(tmp_path / "altered" / "checkpoints", replace(checkpoint, arrays=arrays, metadata=metadata))
        return tmp_path / "altered"

    return altered


def split_of(recorded):
    train, test = load_data(recorded["data"], size=100, test_size=40)
    return split_data(train, test, **{name: recorded[name] for name in ("train_size", "val_size", "holdout")})


def probabilities_of(run_dir, images):
    return load_model(run_dir).predict(images.astype(np.float32) / 255, verbose=0)


def counts_in(figure):
    return np.array([int(text.get_text()) for text in figure.axes[0].texts]).reshape(10, 10)


def gallery_in(figure):
    """Return `(picture, true class, predicted class, confidence as text)` of each picture."""
    drawn = [axes for axes in figure.axes if axes.images]
    return [(axes.images[0].get_array(), *re.split("true: |\npredicted: |, ", axes.get_title())[1:]) for axes in drawn]


def file_of(picture, **options):
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="png", **options)
    return content.getvalue()


def input_in(prediction):
    return np.asarray(prediction.figure.axes[-2].images[0].get_array())


def test_prediction_is_repeatable_compiles_nothing_and_prints_nothing(trained, capsys, caplog, monkeypatch):
    if keras.backend.backend() == "tensorflow":  # It warns if a function is compiled for the fifth time.
        monkeypatch.setattr(keras.Model, "make_predict_function", lambda *arguments: pytest.fail("compiled"))
    one, other = (predict(trained, PICTURE).probabilities for _ in range(2))
    assert one == other
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_confusion_counts_are_those_of_the_best_weights_on_the_validation_images(trained, validation):
    images, labels = validation
    predicted = probabilities_of(trained, images).argmax(1)
    expected = [[np.sum((labels == true) & (predicted == other)) for other in range(10)] for true in range(10)]
    assert counts_in(plot_confusion(trained)).tolist() == expected


def test_confusion_shows_run_epoch_images_accuracy_and_classes(trained):
    figure = plot_confusion(trained)
    best, accuracy = status(trained)["best_epoch"], status(trained)["best_val_accuracy"]
    title = f"small/seed-0, epoch {best}\nright on {round(40 * accuracy)} of 40 images, accuracy {accuracy:.4f}"
    assert figure.get_suptitle() == title
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(CLASS_NAMES)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(CLASS_NAMES)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.parametrize("number", [-1, 10, "cat"])
def test_class_that_there_is_not_is_refused(trained, number):
    with pytest.raises(Error, match="expected the number of a class, 0 to 9"):
        predict(trained, PICTURE, number)


def test_colour_is_the_share_of_the_true_class_and_every_count_is_readable(trained):
    (image,) = plot_confusion(trained).axes[0].images
    counts = counts_in(plot_confusion(trained))
    np.testing.assert_allclose(image.get_array(), counts / counts.sum(1, keepdims=True))

    def luminance(colours):
        # WCAG 2's relative luminance.
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    dark = np.linspace(WHITE_FROM, 1, 50)
    light = np.linspace(0, WHITE_FROM - 1e-9, 50)
    assert (1.05 / (luminance(image.cmap(dark)[:, :3]) + 0.05)).min() >= 4.5
    assert ((luminance(image.cmap(light)[:, :3]) + 0.05) / 0.05).min() >= 4.5


def test_counts_are_white_on_dark_and_black_on_light_cells_and_a_class_may_have_no_image(altered):
    figure = plot_confusion(altered("automobile", val_size=4))
    colours = np.array([text.get_color() for text in figure.axes[0].texts]).reshape(10, 10)
    assert counts_in(figure)[:, 1].tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert colours[:, 1].tolist() == ["white"] * 4 + ["black"] * 6
    assert set(colours[:, 2]) == {"black"}


def test_mistakes_are_the_most_confident_ones_in_order(trained, validation):
    images, labels = validation
    probabilities = probabilities_of(trained, images)
    gallery = gallery_in(plot_mistakes(trained))
    assert len(gallery) == 25
    shown = [next(i for i in range(40) if np.array_equal(images[i], picture)) for picture, *_ in gallery]
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    for index, (_, true_class, predicted_class, confidence_text) in zip(shown, gallery, strict=True):
        assert true_class == CLASS_NAMES[labels[index]] != predicted_class == CLASS_NAMES[predicted[index]]
        assert float(confidence_text) == pytest.approx(confidence[index], abs=0.0051)
    assert (np.diff(confidence[shown]) <= 1e-6).all()
    others = [i for i in range(40) if predicted[i] != labels[i] and i not in shown]
    assert len(others) > 0
    assert confidence[others].max() <= confidence[shown].min() + 1e-6
    title = f"wrong on {len(shown) + len(others)} of 40 images, the 25 most confident"
    assert plot_mistakes(trained).get_suptitle().splitlines()[1] == title


def test_few_mistakes_have_titles_that_do_not_overlap(altered):
    figure = plot_mistakes(altered("automobile", val_size=10))
    gallery = gallery_in(figure)
    titles = sorted(tuple(title) for _, *title in gallery)
    assert titles == [(name, "automobile", "1.00") for name in CLASS_NAMES if name != "automobile"]
    assert figure.get_suptitle().endswith("wrong on 9 of 10 images")
    figure.draw_without_rendering()
    titles = [axes.title for axes in figure.axes if axes.images] + figure.texts
    boxes = [title.get_window_extent() for title in titles]
    assert not any(one.overlaps(other) for one in boxes for other in boxes if one is not other)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_figure_without_mistakes_has_a_note(altered):
    figure = plot_mistakes(altered("airplane", val_size=1))
    assert gallery_in(figure) == []
    assert any("no mistake" in text.get_text() for text in figure.texts)


def test_images_are_the_held_out_ones_if_the_run_validates_on_them(altered):
    run_dir = altered(train_size=80, val_size=20, holdout=20)
    split = split_of({"data": "synthetic", "train_size": 80, "val_size": 20, "holdout": 20})
    predicted = probabilities_of(run_dir, split.val_images).argmax(1)
    expected = [
        [np.sum((split.val_labels == true) & (predicted == other)) for other in range(10)] for true in range(10)
    ]
    assert counts_in(plot_confusion(run_dir)).tolist() == expected


def test_data_of_a_cifar10_run_is_read_from_the_given_folder(altered, cifar10_folder, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(cifar10_folder))
    run_dir = altered("ship", data="cifar10")
    monkeypatch.setenv("CIFAR10_DIR", "/nowhere")
    counts = counts_in(plot_confusion(run_dir, data=cifar10_folder))
    assert counts.sum() == counts[:, 8].sum() == 40


@pytest.mark.parametrize("plot", [plot_confusion, plot_mistakes])
def test_data_that_differs_from_the_runs_is_refused(trained, altered, plot):
    with pytest.raises(Error, match="was trained on synthetic, not on 'cifar10'"):
        plot(trained, data="cifar10")
    with pytest.raises(Error, match=r"SHA-256 \w{16}\.\.\., expected those of .*, 0{16}\.\.\."):
        plot(altered(data_sha256="0" * 64))


def test_folder_without_a_run_is_refused(tmp_path):
    for function in (plot_confusion, plot_mistakes, lambda folder: predict(folder, PICTURE)):
        with pytest.raises(Error, match="holds no run"):
            function(tmp_path)


def test_prediction_of_a_validation_image_is_that_of_the_best_weights(trained, validation):
    image = validation[0][7]
    (expected,) = probabilities_of(trained, image[None])
    prediction = predict(trained, image)
    assert set(prediction.probabilities) == set(CLASS_NAMES)
    assert [prediction.probabilities[name] for name in CLASS_NAMES] == pytest.approx(expected.tolist(), abs=1e-6)
    assert prediction.class_name == CLASS_NAMES[expected.argmax()] == next(iter(prediction.probabilities))
    assert list(prediction.probabilities.values()) == sorted(prediction.probabilities.values(), reverse=True)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert all(type(value) is float for value in prediction.probabilities.values())


def test_file_bytes_image_and_array_of_one_picture_give_the_same_prediction(trained, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(file_of(PICTURE))
    opaque = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    expected = predict(trained, PICTURE)
    for picture in (path, str(path), path.read_bytes(), Image.fromarray(PICTURE), opaque):
        prediction = predict(trained, picture)
        assert prediction.probabilities == expected.probabilities
        np.testing.assert_array_equal(input_in(prediction), input_in(expected))


def test_network_sees_the_centre_square(trained):
    expected = predict(trained, PICTURE[:, 25:115])
    assert predict(trained, PICTURE).probabilities == expected.probabilities
    assert predict(trained, PICTURE.transpose(1, 0, 2)[25:115]).probabilities != expected.probabilities
    np.testing.assert_array_equal(input_in(predict(trained, PICTURE)), input_in(expected))
    given, square = predict(trained, PICTURE).figure.axes[0].images[0].get_array(), input_in(expected)
    assert (given.shape, square.shape) == ((90, 140, 3), (32, 32, 3))


def test_fine_pattern_is_averaged_and_not_sampled(trained):
    pattern = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    inside = input_in(predict(trained, pattern))[2:-2, 2:-2]
    assert abs(inside.astype(int) - 127).max() <= 2


def test_gray_transparent_and_16_bit_pictures_are_converted(trained):
    gray = PICTURE[:32, :32, 0]
    assert (input_in(predict(trained, gray)) == gray[..., None]).all()
    assert (input_in(predict(trained, Image.fromarray(gray.astype(np.uint16) * 257))) == gray[..., None]).all()
    assert (input_in(predict(trained, np.zeros((40, 40, 4), np.uint8))) == 255).all()
    assert (input_in(predict(trained, Image.fromarray(gray).convert("I"))) == gray[..., None]).all()


def test_picture_without_pixels_is_refused(trained):
    with pytest.raises(Error, match="it has no pixels"):
        predict(trained, Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("odd", [False, True])
def test_photo_is_rotated_by_its_exif_orientation(trained, odd):
    # The EXIF orientation, 0x0112, is 6: a viewer rotates the picture clockwise. Odd is a description that is no text.
    entries = [struct.pack("<HHIHH", 0x010E, 5, 1, 1, 0)] if odd else []
    entries += [struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    content = file_of(np.rot90(PICTURE), exif=exif)
    expected = predict(trained, PICTURE)
    for picture in (content, Image.open(io.BytesIO(content))):
        prediction = predict(trained, picture)
        assert prediction.probabilities == expected.probabilities
        assert prediction.figure.axes[0].images[0].get_array().shape == (90, 140, 3)


@pytest.mark.parametrize("kind", ["tiff", "png", "webp"])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 1)])
def test_picture_of_any_format_is_rotated_once(trained, kind, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(np.rot90(PICTURE, turns)).save(content, kind, exif=exif, **options)
    assert (input_in(predict(trained, content.getvalue())) == input_in(predict(trained, PICTURE))).all()


@pytest.mark.parametrize("size", [(4, 3), (1, 2000), (3000, 2000)])
def test_picture_of_any_size_is_accepted_and_shown_completely(trained, size):
    prediction = predict(trained, np.zeros(size, np.uint8))
    axes = prediction.figure.axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, size[1]), (size[0], 0))
    assert axes.get_title() == f"the picture, {size[1]} x {size[0]}"
    assert max(axes.images[0].get_array().shape) <= 1024


def test_prediction_has_a_picture_in_a_notebook(trained):
    prediction = predict(trained, PICTURE)
    width, height = Image.open(io.BytesIO(prediction._repr_png_())).size
    assert width > 2 * height > 0
    bars = prediction.figure.axes[2]
    assert [bar.get_width() for bar in bars.patches] == list(prediction.probabilities.values())
    assert [text.get_text() for text in bars.get_yticklabels()] == list(prediction.probabilities)
    assert bars.yaxis_inverted()
    assert "figure" not in repr(prediction)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.class_name = "frog"


def test_pyplot_keeps_no_figure(trained):
    plot_confusion(trained)
    plot_mistakes(trained)
    predict(trained, PICTURE)
    assert not matplotlib.pyplot.get_fignums()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (b"no picture", "a file of 10 bytes is not an image file"),
        (file_of(PICTURE)[:-1000], r"a file of \d+ bytes cannot be read"),
        ("nowhere.png", r"nowhere\.png is missing; expected the path of a picture"),
        ("/", "/ cannot be read"),
        (Image.new("F", (32, 32)), "the image of mode F cannot be read"),
        (np.zeros((32, 32, 3)), r"an array \(32, 32, 3\) of float64; expected .* of uint8"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"an array \(1, 32, 32, 3\) of uint8"),
        (np.zeros((32, 32, 2), np.uint8), r"an array \(32, 32, 2\) of uint8"),
        (np.zeros((0, 32), np.uint8), r"an array \(0, 32\) of uint8"),
        (None, "a NoneType; expected the path"),
        ([[0, 0], [0, 0]], "a list; expected the path"),
    ],
)
def test_invalid_picture_is_refused_in_one_message(trained, picture, message):
    with pytest.raises(Error, match=message) as caught:
        predict(trained, picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_picture_with_too_many_pixels_is_refused_without_a_warning(trained, tmp_path, side):
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(Error, match=r"bomb\.png has too many pixels"):
        predict(trained, path)


def test_true_class_is_told_and_a_small_picture_is_shown_once(trained):
    small = predict(trained, PICTURE[:32, :32], true_class=3).figure
    assert small.get_suptitle().endswith("The true class is cat.")
    assert [bool(axes.images) for axes in small.axes] == [True, False]
    large = predict(trained, PICTURE).figure
    assert "true class" not in large.get_suptitle()
    assert [bool(axes.images) for axes in large.axes] == [True, True, False]
