"""A killed run resumes as the uninterrupted run, bit for bit."""

import os
import random
import shutil
import signal
from dataclasses import replace

import keras
import pytest

from colabcnn import Augmentation, Error, run
from colabcnn.store.history import read_history
from support.runs import BACKENDS, differences
from support.shared_files import COMPLETE, EXPERIMENT, OPTIONS

pytestmark = [pytest.mark.versions, pytest.mark.kill]

EPOCHS = 6


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.colab)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_run_resumes_as_the_uninterrupted_run(tmp_path, sessions_on, backend, precision):
    sessions, options = sessions_on(backend), {"recipe": "06_final", "epochs": EPOCHS}
    options["precision"] = precision
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    sessions(uninterrupted, **options)
    rng = random.Random(f"{backend} {precision}")
    for epoch in (2, 4) if precision == "float32" else (3,):
        sessions(killed, kill={"step": [epoch, rng.randrange(7)]}, ends=-signal.SIGKILL, **options)
    sessions(killed, **options)

    assert differences(uninterrupted, killed) == []
    assert read_history(killed / "history.csv")["epoch"] == list(range(1, EPOCHS + 1))


@pytest.mark.colab
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_altered_row_of_one_epoch_makes_another_run(tmp_path, sessions_on, backend):
    sessions_on(backend)(tmp_path / "uninterrupted", epochs=3)
    sessions_on(backend)(tmp_path / "altered", epochs=3, altered_epoch=3)
    differing = differences(tmp_path / "uninterrupted", tmp_path / "altered")
    assert "loss" in differing
    assert "model 0" in differing
    assert "optimizer 2" in differing


def test_extended_run_equals_run_of_that_length(tmp_path, small_options):
    small_options.pop("epochs")
    run(COMPLETE, tmp_path / "uninterrupted", epochs=3, **small_options)
    run(COMPLETE, tmp_path / "extended", epochs=1, **small_options)
    result = run(COMPLETE, tmp_path / "extended", epochs=3, **small_options)
    assert result.complete
    assert differences(tmp_path / "uninterrupted", tmp_path / "extended") == []


def test_run_keeps_its_length_and_says_so_if_the_experiment_has_another_one(tmp_path, small_options, capsys):
    options = {**small_options, "epochs": None, "quiet": False}
    run(replace(COMPLETE, epochs=1), tmp_path, **options)
    assert "ends with" not in capsys.readouterr().out
    assert run(replace(COMPLETE, epochs=2), tmp_path, **options).history["epoch"] == [1]
    assert (
        "The run ends with epoch 1; to train the experiment's 2, give that number as epochs." in capsys.readouterr().out
    )


@pytest.mark.newest
def test_run_with_fewer_epochs_than_done_returns_the_stored_history(tmp_path, small_experiment, small_options):
    stopped = run(small_experiment, tmp_path, hours=1e-9, **{**small_options, "epochs": 9})
    assert not stopped.complete
    result = run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    assert (result.complete, result.reason) == (True, "1 epochs are done and 1 requested")
    assert result.history == stopped.history


@pytest.mark.newest
def test_partial_file_of_a_killed_write_is_removed(tmp_path, small_experiment, small_options):
    run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    partial, other = (
        tmp_path / "checkpoints" / name for name in (".epoch-000002-0.safetensors.9.partial", ".x.partial")
    )
    for path in (partial, other):
        path.write_bytes(b"half")
    run(small_experiment, tmp_path, **{**small_options, "epochs": 2})
    assert not partial.exists()
    assert other.exists()


@pytest.mark.newest
def test_finished_run_trains_nothing(tmp_path, small_experiment, small_options):
    first = run(small_experiment, tmp_path, **small_options)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()}
    again = run(small_experiment, tmp_path, **small_options)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "checkpoints").iterdir()} == files
    fewer = run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    assert fewer.history == first.history


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """The folder of a finished run of one epoch in float32, which each of the refused runs leaves as it is."""
    folder = tmp_path_factory.mktemp("one epoch")
    run(EXPERIMENT, folder, epochs=1, precision="float32", **OPTIONS)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0, now given 1"),
        ({"train_size": 90}, "train_size is 100, now given 90"),
        ({"val_size": 30}, "val_size is 40, now given 30"),
        ({"holdout": 20}, "holdout is 0, now given 20"),
        ({"data": "cifar10"}, "data is 'synthetic', now given 'cifar10'"),
        ({"precision": "mixed_float16"}, "precision is 'float32', now given 'mixed_float16'"),
    ],
)
@pytest.mark.newest
def test_fault_25_another_run_in_the_same_folder_is_refused(one_epoch, change, message):
    before = (one_epoch / "history.csv").read_bytes()
    with pytest.raises(Error, match=message):
        run(EXPERIMENT, one_epoch, **{**OPTIONS, **change}, epochs=3)
    assert (one_epoch / "history.csv").read_bytes() == before


@pytest.mark.newest
def test_another_experiment_in_the_same_folder_is_refused_by_field(one_epoch):
    with pytest.raises(Error, match=r"experiment.dropout is 0.0, now given 0.5"):
        run(replace(EXPERIMENT, dropout=0.5), one_epoch, epochs=3, **OPTIONS)
    with pytest.raises(Error, match=r"experiment.augmentation is False, now given True"):
        run(replace(EXPERIMENT, augmentation=Augmentation()), one_epoch, epochs=3, **OPTIONS)
    with pytest.raises(Error, match=r"experiment is 'small', now given 'other'"):
        run(replace(EXPERIMENT, name="other"), one_epoch, epochs=3, **OPTIONS)


@pytest.mark.newest
def test_altered_data_is_refused(one_epoch, monkeypatch):
    from colabcnn.data import split as data

    split_data = data.split_data

    def with_one_pixel_altered(*arguments, **options):
        split = split_data(*arguments, **options)
        split.train_images[0, 0, 0, 0] ^= 1
        return split

    monkeypatch.setattr(data, "split_data", with_one_pixel_altered)
    with pytest.raises(Error, match=r"was trained on other images: their SHA-256 was .* give the images"):
        run(EXPERIMENT, one_epoch, epochs=3, **OPTIONS)


@pytest.mark.newest
def test_finished_run_replaces_an_older_picture_and_model_and_removes_partial_files(one_epoch, tmp_path):
    folder = shutil.copytree(one_epoch, tmp_path / "run")
    for name in ("curves.png", "model.keras"):
        (folder / name).write_bytes(b"of an earlier epoch")
        os.utime(folder / name, (1, 1))
    for name in ("model.keras", "drive.json", ".writable"):
        (folder / f".{name}.1.partial").write_bytes(b"half")
    run(EXPERIMENT, folder, epochs=1, **OPTIONS)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert keras.saving.load_model(folder / "model.keras")
    assert not list(folder.glob(".*.partial"))


@pytest.mark.newest
def test_run_without_readable_checkpoint_is_moved_aside_and_restarts(tmp_path, small_experiment, small_options, capsys):
    first = run(small_experiment, tmp_path, **small_options)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    again = run(small_experiment, tmp_path, **{**small_options, "quiet": False})
    kept = {path.name for path in (tmp_path / "moved-aside-1").iterdir()}
    assert {name for name in kept if not name.startswith("epoch-")} == {"history.csv", "curves.png", "model.keras"}
    assert len(kept) == 6
    assert "starts with epoch 1" in capsys.readouterr().out
    assert again.history["loss"] == first.history["loss"]


@pytest.mark.newest
def test_broken_newest_checkpoint_is_skipped_with_the_reason(tmp_path, small_experiment, small_options, capsys):
    first = run(small_experiment, tmp_path, **small_options)
    newest = max((tmp_path / "checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    (tmp_path / "run.json").unlink()
    again = run(small_experiment, tmp_path, **{**small_options, "quiet": False})
    output = capsys.readouterr().out
    assert "Skipped: epoch-000003" in output
    assert "epoch 3 to 3" in output
    assert again.history["loss"] == first.history["loss"]
    assert [path.name for path in (tmp_path / "moved-aside-1").iterdir()] == [newest.name]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


@pytest.mark.newest
def test_run_that_was_stopped_before_its_first_checkpoint_leaves_nothing_to_move(
    tmp_path, small_experiment, small_options, capsys
):
    def stop(batch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback = keras.callbacks.LambdaCallback(on_train_batch_begin=stop)
        run(small_experiment, tmp_path, **{**small_options, "callbacks": [callback]})
    assert run(small_experiment, tmp_path, **{**small_options, "quiet": False}).complete
    assert "Unusable" not in capsys.readouterr().out
    assert not (tmp_path / "moved-aside-1").exists()


@pytest.mark.newest
def test_history_without_checkpoints_is_moved_aside_and_not_overwritten(tmp_path, small_experiment, small_options):
    run(small_experiment, tmp_path, **{**small_options, "epochs": 2})
    before = (tmp_path / "history.csv").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    assert (tmp_path / "moved-aside-1" / "history.csv").read_bytes() == before
