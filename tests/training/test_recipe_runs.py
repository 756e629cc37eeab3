"""A recipe's run is killed, resumed, extended, evaluated and shared like any other run."""

import json
import shutil
import signal
from dataclasses import replace

import keras
import numpy as np
import pytest

import ingredients
from colabcnn import (
    RECIPES,
    Error,
    evaluate,
    export,
    fetch,
    run,
)
from colabcnn.experiments.ingredients import Constant
from colabcnn.experiments.settings import flatten_settings
from colabcnn.network import devices
from colabcnn.store.history import read_history
from support.runs import BACKENDS, differences

pytestmark = [pytest.mark.versions, pytest.mark.kill]


@pytest.mark.colab
@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"08_in_8_epochs"}))  # With 5 epochs it is 08_in_minutes.
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_recipe_resumes_as_the_uninterrupted_run(tmp_path, sessions_on, backend, name):
    sessions, options = sessions_on(backend), {"epochs": 5, "recipe": name}
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    sessions(uninterrupted, **options)
    for epoch in (2, 4):
        sessions(killed, kill={"step": [epoch, 3]}, ends=-signal.SIGKILL, **options)
    sessions(killed, **options)

    assert differences(uninterrupted, killed) == []
    history = read_history(killed / "history.csv")
    assert history["epoch"] == [1, 2, 3, 4, 5]
    rates = history["learning_rate"]  # At the start of each epoch.
    highest = rates.index(max(rates))
    assert rates == sorted(rates[:highest]) + sorted(rates[highest:], reverse=True)
    assert rates[0] == 0 < rates[-1] < rates[highest]


@pytest.mark.newest
def test_run_with_a_falling_rate_keeps_its_length(tmp_path, small_recipe, small_options, capsys):
    small_options.pop("epochs")
    stopped = run(small_recipe, tmp_path, epochs=2, hours=1e-9, **small_options)
    assert not stopped.complete
    with pytest.raises(Error, match=r"experiment.epochs is 2, over which its learning rate falls, now given 4"):
        run(small_recipe, tmp_path, epochs=4, **small_options)
    # Without a number the run keeps its own, and reports it.
    result = run(small_recipe, tmp_path, **{**small_options, "quiet": False})
    assert "falls over 2 epochs, not 3" in capsys.readouterr().out
    assert (result.complete, result.history["epoch"]) == (True, [1, 2])
    with pytest.raises(Error, match=r"experiment.epochs is 2, .*, now given 1"):
        run(small_recipe, tmp_path, epochs=1, **small_options)
    assert run(small_recipe, tmp_path, **small_options) == result


@pytest.mark.newest
def test_error_for_a_changed_schedule_names_the_schedule(tmp_path, small_recipe, small_options):
    constant = replace(small_recipe, schedule=Constant())
    for number, (first, second) in enumerate(((constant, small_recipe), (small_recipe, constant))):
        run(first, tmp_path / str(number), hours=1e-9, **small_options)
        kinds = type(first.schedule).__name__, type(second.schedule).__name__
        message = "experiment.schedule.kind is '{}', now given '{}'".format(*kinds)
        with pytest.raises(Error, match=message):
            run(second, tmp_path / str(number), **small_options)


@pytest.mark.colab
def test_recipe_resumes_from_drive_with_its_length(tmp_path, small_recipe, small_options):
    small_options.pop("epochs")
    local, drive = tmp_path / "local", tmp_path / "drive"
    run(small_recipe, local, drive_folder=drive, epochs=2, hours=1e-9, **small_options)
    result = run(small_recipe, tmp_path / "elsewhere", drive_folder=drive, **small_options)
    assert (result.complete, result.history["epoch"]) == (True, [1, 2])
    with pytest.raises(Error, match=r"experiment.epochs is 2, .*, now given 3"):
        run(small_recipe, tmp_path / "third", drive_folder=drive, epochs=3, **small_options)


@pytest.mark.colab
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_recipe_trains_in_16_bits(tmp_path, small_recipe, small_options, precision):
    recipe = replace(small_recipe, precise_batch_norm=True)
    result = run(recipe, tmp_path, precision=precision, **small_options)
    assert np.isfinite([*result.history["loss"], *result.history["val_loss"]]).all()
    assert result.history["loss"][-1] < result.history["loss"][0]


# Rounding differences grow from step to step, to one percent within two epochs in 16 bits and three in 32.
@pytest.mark.parametrize("precision, epochs, tolerance", [("float32", 1, 0.01), ("mixed_float16", 1, 0.02)])
@pytest.mark.colab
def test_recipe_trains_in_several_steps_a_call(
    tmp_path, small_recipe, small_options, monkeypatch, precision, epochs, tolerance
):
    losses = []
    recipe = replace(small_recipe, precise_batch_norm=True)
    for steps in (1, 3):
        execution = devices.Execution(steps, xla=True)
        monkeypatch.setattr(devices, "auto_execution", lambda execution=execution: execution)
        options = {**small_options, "epochs": epochs}
        result = run(recipe, tmp_path / str(steps), precision=precision, **options)
        (start,) = json.loads((tmp_path / str(steps) / "run.json").read_text())["starts"]
        assert start["execution"]["steps_per_call"] == steps
        losses.append([result.history[column] for column in ("loss", "val_loss")])
    np.testing.assert_allclose(*losses, rtol=tolerance)


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.ReduceLROnPlateau("loss"),
    ],
)
@pytest.mark.newest
def test_callback_that_sets_the_rate_beside_a_schedule_is_refused_before_the_run(
    tmp_path, small_recipe, small_options, callback
):
    with pytest.raises(Error, match=rf"{type(callback).__name__}.*RiseAndFall.*give an experiment with schedule="):
        run(small_recipe, tmp_path / "run", callbacks=[callback], **small_options)
    assert not (tmp_path / "run").exists()


@pytest.mark.colab
def test_recipe_is_evaluated_shared_and_continued(tmp_path, small_recipe, small_options, few_test_images, offered):
    run_dir = tmp_path / "run"
    run(small_recipe, run_dir, hours=1e-9, **small_options)
    measured = evaluate(run_dir)["last_epoch"]
    assert measured["epoch"] == 1
    digest = export(run_dir, tmp_path / "run.safetensors", checkpoint=True, quiet=True)
    fetched = fetch(offered((tmp_path / "run.safetensors").read_bytes()), digest, tmp_path / "fetched", quiet=True)
    assert evaluate(fetched)["last_epoch"] == measured
    result = run(small_recipe, fetched, **small_options)
    assert result.history["epoch"] == [1, 2, 3]


@pytest.mark.newest
def test_run_json_without_experiment_and_checkpoint_does_not_block_a_new_run(
    tmp_path, trained, small_experiment, small_options
):
    folder = shutil.copytree(trained, tmp_path / "run")
    run_json = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run_json, "experiment": None}))
    shutil.rmtree(folder / "checkpoints")
    assert run(small_experiment, folder, **{**small_options, "epochs": 1}).complete


@pytest.mark.newest
def test_each_comparison_leaves_out_the_ingredient_in_its_name():
    recipe, *others = (flatten_settings(e.settings()) for e in ingredients.EXPERIMENTS.values())
    assert recipe == flatten_settings(RECIPES["08_in_minutes"].settings())
    differing = [
        {key for key in {**recipe, **other} if key != "name" and other.get(key) != recipe.get(key)} for other in others
    ]
    muon = {f"optimizer.{name}" for name in ("kind", "learning_rate", "adam_learning_rate", "momentum")}
    assert dict(zip([other["name"].removeprefix("08_without_") for other in others], differing, strict=True)) == {
        "muon": muon | {"optimizer.newton_schulz_steps"},
        "falling_rate": {
            "schedule.kind",
            "schedule.rise",
            "optimizer.learning_rate",
            "optimizer.adam_learning_rate",
        },
        "dirac": {"initializer"},
        "label_smoothing": {"label_smoothing"},
        "alternating_flip": {"augmentation.alternating_flip"},
        "shifts": {"augmentation.width_shift_range", "augmentation.height_shift_range"},
        "mirrored_border": {"augmentation.fill_mode"},
        "quick_statistics": {"batch_norm_momentum"},
        "four": {"initializer", "augmentation.alternating_flip", "augmentation.fill_mode", "batch_norm_momentum"},
    }
