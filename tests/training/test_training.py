"""`run` trains the experiment, keeps its folder up to date, and reports an error in one message."""

import gc
import json
import re
import shutil
import weakref
import zipfile
from dataclasses import replace

import keras
import numpy as np
import pytest

from colabcnn import ABLATIONS, Error, evaluate, fetch, load_model, run, status
from colabcnn.network import devices
from colabcnn.network.training_model import TrainingModel
from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.store.history import COLUMNS, read_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.training import progress
from colabcnn.training.progress import ProgressLine
from colabcnn.training.request import RunRequest
from colabcnn.viewing import curves
from support.shared_files import COMPLETE

pytestmark = [pytest.mark.versions, pytest.mark.kill]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three epochs: `(folder, result)`; tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    experiment = replace(ABLATIONS["06_final"], name="small", filters=(4, 4, 8), batch_size=16)
    options = {"data": "synthetic", "train_size": 100, "val_size": 40, "epochs": 3, "quiet": True}
    return folder, run(experiment, folder, **options)


def test_result_and_history_file_agree(finished):
    folder, result = finished
    assert result.complete
    assert result.reason == "all 3 epochs are done"
    assert tuple(result.history) == COLUMNS
    assert read_history(folder / "history.csv") == result.history
    assert result.history["epoch"] == [1, 2, 3]
    assert result.history["learning_rate"] == pytest.approx([0.001] * 3)


def test_folder_holds_the_files_that_the_readme_lists(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()} - {"lock"}
    assert names == {"run.json", "history.csv", "checkpoints", "curves.png", "model.keras"}
    recorded = json.loads((folder / "run.json").read_text())
    assert (recorded["seed"], recorded["train_size"], recorded["val_size"]) == (0, 100, 40)
    assert recorded["precision"] == devices.auto_precision()
    (start,) = recorded["starts"]
    assert (start["first_epoch"], start["last_epoch"], start["ended"]) == (1, 3, "all 3 epochs are done")
    assert start["versions"]["keras"] == keras.__version__
    assert str(folder) not in (folder / "run.json").read_text()


def test_validation_values_cover_the_full_validation_set(finished):
    from colabcnn import load_synthetic
    from colabcnn.inspection.weights import network_with_weights

    folder, result = finished
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    images, labels = (values[:40] for values in load_synthetic(1)[1])
    network = network_with_weights(RunFolder(folder).read_record(), checkpoint.arrays["model"])
    probabilities = network.predict(images.astype(np.float32) / 255, verbose=0)
    label_probabilities = probabilities[np.arange(40), labels]
    assert (probabilities.argmax(1) == labels).mean() == pytest.approx(result.history["val_accuracy"][-1])
    assert -np.log(label_probabilities).mean() == pytest.approx(result.history["val_loss"][-1], rel=1e-4)


def test_load_model_returns_the_best_weights_and_plain_keras_opens_model_keras(finished):
    folder, _ = finished
    images = np.random.default_rng(0).random((3, 32, 32, 3), dtype=np.float32)
    loaded = load_model(folder)
    by_keras = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), by_keras.predict(images, verbose=0))
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), checkpoint.arrays["best"], strict=True))
    assert "colabcnn" not in zipfile.ZipFile(folder / "model.keras").read("config.json").decode()


def test_status_has_exactly_its_fields(finished):
    folder, result = finished
    found = status(folder)
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    assert found == {
        "experiment": "small",
        "seed": 0,
        "epoch": 3,
        "epochs": 3,
        "best_val_accuracy": max(result.history["val_accuracy"]),
        "best_epoch": int(np.argmax(result.history["val_accuracy"])) + 1,
        "complete": True,
        "weights_sha256": checkpoint.weights_sha256(),
    }


def test_evaluate_measures_once(trained, tmp_path, monkeypatch, few_test_images):
    from colabcnn import load_synthetic
    from colabcnn.inspection import evaluation

    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    measured = evaluate(folder)
    assert measured["test_size"] == 500
    assert 0 <= measured["last_epoch"]["accuracy"] <= 1
    assert json.loads((folder / "test.json").read_text()) == measured
    for kind, weights in (("last_epoch", "model"), ("best_epoch", "best")):
        checkpoint, _ = newest_checkpoint(folder / "checkpoints")
        precision = json.loads((folder / "run.json").read_text())["precision"]
        network = evaluation.network_with_weights(
            RunFolder(folder).read_record(), checkpoint.arrays[weights], precision
        )
        network.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        images, labels = load_synthetic(1, 500)[1]
        images = images.astype(np.float32) / 255
        loss, accuracy = network.evaluate(images, labels, verbose=0)
        assert measured[kind]["accuracy"] == pytest.approx(accuracy, abs=6e-4)
        assert measured[kind]["loss"] == pytest.approx(loss, rel=1e-3)
        both = network.predict(images, verbose=0) + network.predict(images[:, :, ::-1], verbose=0)
        assert measured[kind]["flip_averaged_accuracy"] == pytest.approx((both.argmax(1) == labels).mean(), abs=6e-4)
    monkeypatch.setattr(evaluation, "load_data", None)
    assert evaluate(folder) == measured
    with pytest.raises(Error, match="was trained on synthetic"):
        evaluate(folder, data="cifar10")


@pytest.mark.newest
def test_result_that_cannot_be_kept_is_returned(trained, tmp_path, few_test_images, capsys):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "test.json").mkdir()
    assert 0 <= evaluate(tmp_path / "run")["last_epoch"]["accuracy"] <= 1
    assert "test.json cannot be written (Is a directory): the result is not kept" in capsys.readouterr().out


@pytest.mark.newest
def test_holdout_does_not_use_the_test_set(tmp_path, small_experiment, small_options):
    small_options.pop("val_size")
    run(small_experiment, tmp_path, holdout=50, **{**small_options, "epochs": 1})
    recorded = json.loads((tmp_path / "run.json").read_text())
    assert (recorded["train_size"], recorded["val_size"], recorded["holdout"]) == (100, 50, 50)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.colab)])
def test_mixed_precision_trains_and_keeps_its_precision(tmp_path, small_options, precision):
    run(COMPLETE, tmp_path, precision=precision, **{**small_options, "epochs": 1})
    result = run(COMPLETE, tmp_path, **{**small_options, "epochs": 2})
    assert json.loads((tmp_path / "run.json").read_text())["precision"] == precision
    assert np.isfinite(result.history["loss"]).all()


@pytest.mark.parametrize("experiment", ["small_experiment", "small_recipe"])  # Adam and Muon.
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_finished_run_leaves_no_images_in_memory(tmp_path, monkeypatch, request, small_options, precision, experiment):
    networks, images = [], []

    class Remembered(TrainingModel):
        def __init__(self, network, *arguments):
            super().__init__(network, *arguments)
            networks.append(weakref.ref(network))
            images.append(weakref.ref(self.device_data.training()[0]))

    monkeypatch.setattr("colabcnn.training.executable_model.TrainingModel", Remembered)
    run(request.getfixturevalue(experiment), tmp_path, **{**small_options, "epochs": 1}, precision=precision)
    gc.collect()
    assert [each() for each in networks + images] == [None, None]


@pytest.mark.parametrize(
    ("poisoned", "reason"),
    # Softmax passes NaN on; ReLU passes it on or makes 0 of it, depending on the processor.
    [(-1, "loss is nan in epoch 3"), (0, r"(loss is nan|conv_1_1/kernel holds NaN or infinity) in epoch 3")],
)
def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_good_checkpoint(
    tmp_path, small_experiment, small_options, poisoned, reason
):
    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                weights = self.model.network.get_weights()
                weights[poisoned] = np.full_like(weights[poisoned], np.nan)
                self.model.network.set_weights(weights)

    with pytest.raises(Error, match=reason):
        run(small_experiment, tmp_path, callbacks=[Poison()], **{**small_options, "epochs": 5})
    assert status(tmp_path)["epoch"] == 2
    assert read_history(tmp_path / "history.csv")["epoch"] == [1, 2]
    assert re.search(reason, json.loads((tmp_path / "run.json").read_text())["starts"][0]["ended"])
    result = run(small_experiment, tmp_path, **small_options)
    assert result.history["epoch"] == [1, 2, 3]


@pytest.mark.newest
def test_limit_of_hours_saves_a_checkpoint_and_the_same_call_resumes(tmp_path, small_experiment, small_options):
    options = {**small_options, "checkpoint_minutes": 60}
    result = run(small_experiment, tmp_path, hours=1e-9, start_over=True, **options)
    assert not result.complete
    # With it, the call would start a new run.
    assert "after epoch 1; the same call without start_over continues the run, " in result.reason
    assert status(tmp_path)["epoch"] == 1
    assert run(small_experiment, tmp_path, **options).complete


@pytest.mark.colab
def test_tensorboard_continues_after_a_resume(tmp_path, small_experiment, small_options):
    tensorflow = pytest.importorskip("tensorflow")
    for epochs in (1, 3):
        callbacks = [keras.callbacks.TensorBoard(tmp_path / "logs")]
        run(small_experiment, tmp_path / "run", callbacks=callbacks, **{**small_options, "epochs": epochs})
    steps = set()
    for path in (tmp_path / "logs" / "validation").iterdir():
        for record in tensorflow.data.TFRecordDataset(str(path)):
            event = tensorflow.compat.v1.Event.FromString(record.numpy())
            steps |= {event.step for value in event.summary.value if value.tag == "epoch_accuracy"}
    assert steps == {0, 1, 2}


@pytest.mark.colab
def test_interrupt_is_raised_and_the_same_call_resumes(tmp_path, small_experiment, small_options):
    class InterruptInSecondEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_experiment, tmp_path, callbacks=[InterruptInSecondEpoch()], **small_options)
    assert status(tmp_path)["epoch"] == 1
    assert json.loads((tmp_path / "run.json").read_text())["starts"][0]["ended"] == "interrupted"
    assert run(small_experiment, tmp_path, **small_options).history["epoch"] == [1, 2, 3]


@pytest.mark.newest
def test_checkpoint_is_taken_after_its_minutes_after_each_long_epoch_and_at_the_end(
    tmp_path, small_experiment, small_options, monkeypatch
):
    options = {**small_options, "checkpoint_minutes": 60}
    for seconds, expected in ((600, [3]), (0, [3, 2, 1])):
        monkeypatch.setattr("colabcnn.training.recorder.EPOCH_SECONDS", seconds)
        run(small_experiment, tmp_path / str(seconds), **options)
        assert [epoch_of(path) for path in checkpoint_files(tmp_path / str(seconds) / "checkpoints")] == expected


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"train_size": -1},
        {"val_size": 0},
        {"seed": -1},
        {"holdout": 7},
        {"hours": 0},
        {"checkpoint_minutes": -1},
        {"checkpoint_minutes": float("nan")},
        {"precision": "float64"},
        {"data": "nowhere"},
        {"callbacks": None},
        {"callbacks": ["plateau"]},
        {"drive_folder": "{tmp_path}/other/../run"},
    ],
)
@pytest.mark.newest
def test_bad_argument_is_refused_by_name_before_anything_is_written(tmp_path, small_experiment, small_options, bad):
    bad = {name: value.format(tmp_path=tmp_path) if isinstance(value, str) else value for name, value in bad.items()}
    with pytest.raises(Error, match=next(iter(bad.values())) if "data" in bad else next(iter(bad))):
        run(small_experiment, tmp_path / "run", **{**small_options, **bad})
    assert {path.name for path in tmp_path.glob("run/*")} <= {"lock"}


def test_too_many_held_out_images_are_refused(tmp_path):
    with pytest.raises(Error, match=r"^holdout is 60000; expected a whole number from 0 to 49990"):
        run("06_final", tmp_path / "run", holdout=60_000, train_size=50_000)


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, (45_000, 5_000)),
        ({"train_size": 50_000, "val_size": 10_000}, (45_000, 5_000)),
        ({"train_size": 45_001, "val_size": 5_001}, (45_000, 5_000)),
        ({"train_size": 44_999, "val_size": 4_999}, (44_999, 4_999)),
        ({"train_size": 50_001}, (50_001, 5_000)),
        ({"train_size": 50_000, "val_size": 10_000, "data": "synthetic"}, (45_000, 5_000)),
    ],
)
def test_sizes_leave_out_the_images_that_are_held_out(given, sizes):
    identity = RunRequest("06_final", "run", holdout=5_000, **given).identity()
    assert (identity["train_size"], identity["val_size"]) == sizes


@pytest.mark.newest
def test_one_callback_needs_no_list_and_all_images_are_another_run(tmp_path, small_experiment, small_options):
    counted = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    epochs = []
    small_options["epochs"] = 1
    run(small_experiment, tmp_path / "run", callbacks=counted, **small_options)
    assert epochs == [0]
    for size, all_of_them in (("train_size", 50_000), ("val_size", 10_000)):
        others = {name: value for name, value in small_options.items() if name != size}
        with pytest.raises(Error, match=f"its {size} is {small_options[size]}, now given {all_of_them}"):
            run(small_experiment, tmp_path / "run", **others)


@pytest.mark.newest
def test_small_run_on_real_images_learns(tmp_path, small_experiment, cifar10_folder):
    experiment = replace(small_experiment, name="real", filters=(16, 32, 64))
    options = {"data": str(cifar10_folder), "train_size": 1024, "val_size": 100, "epochs": 3, "quiet": True}
    history = run(experiment, tmp_path, **options).history
    assert history["loss"][0] > history["loss"][1] > history["loss"][2]
    assert history["accuracy"][-1] > 0.25


@pytest.mark.colab
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the model has the numbers only under TensorFlow")
def test_current_epoch_is_shown_while_it_trains(tmp_path, small_experiment, small_options, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0)
    history = run(small_experiment, tmp_path, **{**small_options, "epochs": 1, "quiet": False}).history
    *_, before_last, last = re.findall(
        r"step (\d+)/(\d+).*\nnow loss (\d.\d{3}), accuracy (\d.\d{3})", capsys.readouterr().out
    )
    assert last[0] == last[1]
    # The mean of all steps but the last one.
    assert abs(float(last[3]) - history["accuracy"][0]) < 0.1
    assert before_last[2] != last[2]


@pytest.mark.newest
def test_picture_that_fails_stops_neither_a_run_nor_its_return_nor_a_fetch(
    tmp_path, small_experiment, small_options, monkeypatch, offered, shared, capsys
):
    def fail(*arguments, **options):
        raise RuntimeError("LaTeX is not installed")

    monkeypatch.setattr(curves, "png_of", fail)
    for _ in range(2):
        assert run(small_experiment, tmp_path / "run", **{**small_options, "epochs": 2, "quiet": False}).complete
    assert capsys.readouterr().out.count("could not be drawn (LaTeX is not installed)") >= 2
    assert (fetch(offered(shared), folder=tmp_path / "fetched") / "history.csv").exists()


@pytest.mark.newest
def test_front_end_that_cannot_show_a_picture_stops_no_run(tmp_path, small_experiment, small_options, monkeypatch):
    shown = []

    def fail(self, name, html):
        shown.append(name)
        raise RuntimeError("the front end is gone")

    monkeypatch.setattr(ProgressLine, "show_html", fail)
    assert run(small_experiment, tmp_path, **{**small_options, "epochs": 1}).complete
    assert "picture" in shown
