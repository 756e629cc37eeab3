"""The recipes train the final network, layer by layer, otherwise; what they change does what its name says."""

import importlib
import json
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from colabcnn import (
    ABLATIONS,
    RECIPES,
    Augmentation,
    Error,
    augment,
    build_model,
    evaluate,
    export,
    fetch,
    find_experiment,
    plan_epoch,
    run,
)
from colabcnn.data.split import split_data
from colabcnn.data.synthetic import load_synthetic
from colabcnn.experiments.experiment import Constant, Experiment, RiseAndFall, changed_settings, flatten_settings
from colabcnn.network import devices
from colabcnn.network.optimizers import make_loss, make_optimizer
from colabcnn.store.history import read_history
from colabcnn.training.session import compiled_model
from file_server import FileServer
from runs import BACKENDS, differences

pytestmark = pytest.mark.versions

FINAL = ABLATIONS["06_final"]


@pytest.fixture
def small_recipe():
    """The recipe of ten epochs with a network that Muon, Adam and Dirac's filters all have a part in, and quick."""
    return replace(RECIPES["08_in_minutes"], name="small", kernel_sizes=(1, 3), filters=(4, 8), batch_size=16, epochs=3)


def layers_of(model):
    """Return each layer's kind, shape and number of parameters, but dropout's, whose rate may be 0."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
    return [(type(layer), layer.name, tuple(layer.output.shape), layer.count_params()) for layer in layers]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_the_articles_network_layer_by_layer(name):
    model = build_model(RECIPES[name])
    assert layers_of(model) == layers_of(build_model(FINAL))
    assert model.count_params() == RECIPES[name].parameter_count() == 2_974_986
    assert (RECIPES[name].filters, RECIPES[name].kernel_sizes) == (FINAL.filters, FINAL.kernel_sizes)


def test_without_luck_changes_the_schedule_the_length_and_the_statistics_of_validation_only():
    recipe, final = asdict(RECIPES["07_without_luck"]), asdict(FINAL)
    changed = {field for field in final if recipe[field] != final[field]} - {"name", "reported"}
    assert changed <= {"epochs", "optimizer", "schedule", "precise_batch_norm"}
    assert recipe["epochs"] <= 60
    assert isinstance(RECIPES["07_without_luck"].schedule, RiseAndFall)


def test_in_minutes_is_ten_epochs():
    assert RECIPES["08_in_minutes"].epochs == 10


def test_recipes_are_found_by_name_and_named_in_the_refusal_of_others():
    assert find_experiment("08_in_minutes") is RECIPES["08_in_minutes"]
    with pytest.raises(Error, match=r"06_final, 07_without_luck, 08_in_minutes\."):
        find_experiment("09")
    with pytest.raises(Error, match="one of its own"):
        find_experiment(replace(RECIPES["08_in_minutes"], dropout=0.5))


def test_field_that_a_later_version_adds_leaves_settings_and_fingerprint_of_earlier_runs_alone():
    settings = RECIPES["08_in_minutes"].settings()
    earlier = {name: value for name, value in settings.items() if name != "precise_batch_norm"}
    assert Experiment.from_settings(earlier) == RECIPES["08_in_minutes"]
    # A field at its default does not take part in the fingerprint, so adding one with a default changes none.
    assert set(changed_settings(ABLATIONS["03_dropout_20"])) == {"name", "dropout", "augmentation"}
    assert changed_settings(ABLATIONS["03_dropout_20"])["augmentation"] == {
        "kind": "Augmentation",
        "channel_shift_range": 50.0,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_settings_of_a_recipe_survive_json(name):
    restored = Experiment.from_settings(json.loads(json.dumps(RECIPES[name].settings())))
    assert restored == RECIPES[name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "adam"),
        ("schedule", "cosine"),
        ("augmentation", {}),
        ("label_smoothing", -0.1),
        ("initializer", "zeros"),
        ("batch_norm_momentum", 1.0),
        ("precise_batch_norm", 1),
    ],
)
def test_bad_field_is_refused_by_name(field, value):
    with pytest.raises(Error, match=field):
        replace(RECIPES["08_in_minutes"], name="mine", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adam_learning_rate", 0),
        ("momentum", 1),
        ("newton_schulz_steps", 0),
        ("newton_schulz_steps", 1000),
        ("newton_schulz_steps", 2.5),
    ],
)
def test_bad_field_of_muon_is_refused_by_name(field, value):
    with pytest.raises(Error, match=field):
        replace(RECIPES["08_in_minutes"].optimizer, **{field: value})


def test_bad_rise_is_refused_by_name():
    with pytest.raises(Error, match=r"rise is 1.0; expected a number from 0 to 0.9"):
        RiseAndFall(rise=1.0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"whole_pixels": 1}, "whole_pixels"),
        ({"fill_mode": "wrap"}, "fill_mode"),
        ({"alternating_flip": True, "horizontal_flip": False}, "alternating_flip"),
    ],
)
def test_bad_augmentation_is_refused_by_name(options, field):
    with pytest.raises(Error, match=field):
        Augmentation(**options)


# ---- The optimizer.


def built_optimizer(experiment, precision="float32", steps=5):
    network = build_model(experiment)
    optimizer = make_optimizer(experiment, steps_an_epoch=steps, precision=precision)
    optimizer.build(network.trainable_variables)
    return network, optimizer


def gradients_of(network):
    draw = np.random.default_rng(0)
    return [
        keras.ops.convert_to_tensor(draw.normal(size=variable.shape).astype(np.float32))
        for variable in network.trainable_variables
    ]


def test_muon_takes_the_eight_kernels_behind_the_first_and_adam_the_rest():
    network, optimizer = built_optimizer(RECIPES["08_in_minutes"])
    with_velocity = {v.path.partition("/")[2] for v in optimizer.variables if v.path.endswith("_velocity")}
    by_muon = [
        v.path for v in network.trainable_variables if f"{v.path.replace('/', '_')}_velocity" not in with_velocity
    ]
    kernels = [f"conv_{place}/kernel" for place in ("1_2", "1_3", "2_1", "2_2", "2_3", "3_1", "3_2", "3_3")]
    assert by_muon == kernels


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_muon_turns_each_kernel_by_a_step_near_orthogonal(small_recipe, precision):
    muon = replace(small_recipe.optimizer, newton_schulz_steps=5)
    recipe = replace(small_recipe, schedule=Constant(), optimizer=muon)
    network, optimizer = built_optimizer(recipe, precision)
    layer = network.get_layer("conv_2_2")
    before = keras.ops.convert_to_numpy(layer.kernel).reshape(-1, 8)
    gradients = gradients_of(network)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
    after = keras.ops.convert_to_numpy(layer.kernel).reshape(-1, 8)

    scaled = before * (8**0.5 / np.linalg.norm(before))
    update = (scaled - after) / muon.learning_rate
    index = [variable.path for variable in network.trainable_variables].index("conv_2_2/kernel")
    gradient = keras.ops.convert_to_numpy(gradients[index]).reshape(-1, 8)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    stretched = left.T @ update @ right.T  # What the update does to each of the gradient's own directions.
    assert np.all((np.diag(stretched) > 0.6) & (np.diag(stretched) < 1.3))
    assert np.abs(stretched - np.diag(np.diag(stretched))).max() < (0.05 if precision == "float32" else 0.15)


def test_what_muon_leaves_is_trained_as_keras_adam_does(small_recipe):
    muon = replace(small_recipe.optimizer, adam_learning_rate=0.004)
    recipe = replace(small_recipe, schedule=Constant(), optimizer=muon)
    network, optimizer = built_optimizer(recipe)
    twin = build_model(recipe)
    adam = keras.optimizers.Adam(0.004)
    for _ in range(3):
        gradients = gradients_of(network)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        adam.apply_gradients(zip(gradients, twin.trainable_variables, strict=True))
    for name in ("conv_1_1", "batch_norm_2_2", "probabilities"):
        for one, other in zip(
            network.get_layer(name).trainable_weights, twin.get_layer(name).trainable_weights, strict=True
        ):
            np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (one, other)), rtol=1e-5, atol=1e-7)


def test_rate_rises_then_falls_to_nothing_at_the_last_step():
    recipe = replace(RECIPES["08_in_minutes"], schedule=RiseAndFall(rise=0.2), epochs=10)
    rates = rates_of(recipe)
    assert rates[:11] == pytest.approx(np.linspace(0, 0.05, 11))
    assert rates[10:51] == pytest.approx(np.linspace(0.05, 0, 41))
    assert rates[51] == 0


def test_without_rise_the_rate_begins_at_its_highest():
    recipe = replace(RECIPES["07_without_luck"], schedule=RiseAndFall(), epochs=10)
    assert rates_of(recipe)[:51] == pytest.approx(np.linspace(recipe.optimizer.learning_rate, 0, 51))


def rates_of(recipe):
    """Return the rate of each step, and of one more than the run has, in epochs of five steps."""
    rate = make_optimizer(recipe, steps_an_epoch=5, precision="float32")._learning_rate
    return [float(rate(step)) for step in range(recipe.epochs * 5 + 2)]


# ---- The loss and where the kernels begin.


def test_smoothed_loss_is_keras_own_of_one_hot_labels():
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(10), size=6).astype(np.float32)
    labels = draw.integers(0, 10, 6)
    ours = make_loss(replace(RECIPES["08_in_minutes"], label_smoothing=0.2))(labels, probabilities)
    smoothed = np.eye(10)[labels] * 0.8 + 0.02
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), -(smoothed * np.log(probabilities)).sum(axis=1), rtol=1e-4
    )
    assert make_loss(FINAL) == "sparse_categorical_crossentropy"


def test_diracs_filters_hand_on_a_channel_each():
    recipe = RECIPES["08_in_minutes"]
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 64)).astype(np.float32)
    model = build_model(recipe)
    for place, margin, handed_on in (("1_2", 1, 64), ("1_3", 2, 64), ("2_1", 0, 64)):
        outputs = keras.ops.convert_to_numpy(model.get_layer(f"conv_{place}")(images))
        expected = images[:, margin : 9 - margin, margin : 9 - margin]
        np.testing.assert_allclose(outputs[..., :handed_on], expected, atol=1e-6)
    drawn = build_model(replace(recipe, initializer="glorot_uniform")).get_layer("conv_2_1").get_weights()[0]
    assert np.array_equal(model.get_layer("conv_2_1").get_weights()[0][..., 64:], drawn[..., 64:])


def test_batch_norm_has_the_experiments_momentum():
    model = build_model(replace(RECIPES["08_in_minutes"], batch_norm_momentum=0.75))
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in layers} == {0.75}


@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
@pytest.mark.parametrize("by_xla", [False, True])
def test_step_augments_with_the_experiments_fill_mode(small_recipe, fill_mode, by_xla):
    if by_xla and keras.backend.backend() == "jax":
        pytest.skip("JAX is always compiled by XLA")
    split = split_data(*load_synthetic(32, 8))
    experiment = replace(small_recipe, augmentation=replace(small_recipe.augmentation, fill_mode=fill_mode))
    execution = replace(devices.PLAIN, xla_augmentation=by_xla)
    model = compiled_model(experiment, split, seed=0, precision="float32", execution=execution)
    transforms = plan_epoch(0, 1, size=32, augmentation=experiment.augmentation).transforms
    transforms = {name: values.astype(np.float32) for name, values in transforms.items()}
    seen, repeated, mirrored = (
        keras.ops.convert_to_numpy(transformed)
        for transformed in (
            model._augment(split.train_images, **transforms),
            augment(split.train_images, **transforms),
            augment(split.train_images, **transforms, fill_mode="reflect"),
        )
    )
    assert np.abs(repeated - mirrored).max() > 10
    np.testing.assert_allclose(seen, mirrored if fill_mode == "reflect" else repeated, atol=0.01)


# ---- A run.


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_recipe_that_goes_on_equals_the_uninterrupted_one(tmp_path, sessions_on, backend, name):
    sessions, options = sessions_on(backend), {"epochs": 5, "recipe": name}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    sessions(whole, **options)
    for epoch in (2, 4):
        sessions(killed, kill={"step": [epoch, 3]}, ends=-signal.SIGKILL, **options)
    sessions(killed, **options)

    assert differences(whole, killed) == []
    history = read_history(killed / "history.csv")
    assert history["epoch"] == [1, 2, 3, 4, 5]
    rates = history["learning_rate"]  # As each epoch begins.
    highest = rates.index(max(rates))
    assert rates == sorted(rates[:highest]) + sorted(rates[highest:], reverse=True)
    assert rates[0] == 0 < rates[-1] < rates[highest]


def test_another_length_is_another_run_where_the_rate_falls_to_its_end(tmp_path, small_recipe, small_options, capsys):
    small_options.pop("epochs")
    stopped = run(small_recipe, tmp_path, epochs=2, hours=1e-9, **small_options)
    assert not stopped.complete
    with pytest.raises(Error, match=r"experiment.epochs is 2, over which its learning rate falls, now given 4"):
        run(small_recipe, tmp_path, epochs=4, **small_options)
    # No number given: the run's own, which is said.
    result = run(small_recipe, tmp_path, **{**small_options, "quiet": False})
    assert "falls over 2 epochs, not 3" in capsys.readouterr().out
    assert (result.complete, result.history["epoch"]) == (True, [1, 2])
    with pytest.raises(Error, match=r"experiment.epochs is 2, .*, now given 1"):
        run(small_recipe, tmp_path, epochs=1, **small_options)
    assert run(small_recipe, tmp_path, **small_options) == result


def test_changed_schedule_is_what_is_refused_and_not_what_follows_from_it(tmp_path, small_recipe, small_options):
    constant = replace(small_recipe, schedule=Constant())
    for number, (begun, given) in enumerate(((constant, small_recipe), (small_recipe, constant))):
        run(begun, tmp_path / str(number), hours=1e-9, **small_options)
        kinds = type(begun.schedule).__name__, type(given.schedule).__name__
        told = "experiment.schedule.kind is '{}', now given '{}'".format(*kinds)
        with pytest.raises(Error, match=told):
            run(given, tmp_path / str(number), **small_options)


def test_recipe_goes_on_from_drive_with_the_length_that_it_has_there(tmp_path, small_recipe, small_options):
    small_options.pop("epochs")
    here, drive = tmp_path / "here", tmp_path / "drive"
    run(small_recipe, here, drive_folder=drive, epochs=2, hours=1e-9, **small_options)
    result = run(small_recipe, tmp_path / "elsewhere", drive_folder=drive, **small_options)
    assert (result.complete, result.history["epoch"]) == (True, [1, 2])
    with pytest.raises(Error, match=r"experiment.epochs is 2, .*, now given 3"):
        run(small_recipe, tmp_path / "third", drive_folder=drive, epochs=3, **small_options)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_recipe_trains_in_16_bits(tmp_path, small_recipe, small_options, precision):
    recipe = replace(small_recipe, precise_batch_norm=True)
    result = run(recipe, tmp_path, precision=precision, **small_options)
    assert np.isfinite([*result.history["loss"], *result.history["val_loss"]]).all()
    assert result.history["loss"][-1] < result.history["loss"][0]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_recipe_trains_in_several_steps_a_call(tmp_path, small_recipe, small_options, monkeypatch, precision):
    losses, compared = [], 3 if precision == "float32" else 2  # What rounding makes of them grows from step to step.
    recipe = replace(small_recipe, precise_batch_norm=True)
    for steps in (1, 3):
        execution = devices.Execution(steps, xla=True)
        monkeypatch.setattr(devices, "auto_execution", lambda execution=execution: execution)
        result = run(recipe, tmp_path / str(steps), precision=precision, **small_options)
        losses.append([result.history[column][:compared] for column in ("loss", "val_loss")])
    np.testing.assert_allclose(*losses, rtol=0.01)


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.ReduceLROnPlateau("loss"),
    ],
)
def test_two_that_set_the_rate_are_refused_before_anything_begins(tmp_path, small_recipe, small_options, callback):
    with pytest.raises(Error, match=rf"{type(callback).__name__}.*RiseAndFall.*give an experiment with schedule="):
        run(small_recipe, tmp_path / "run", callbacks=[callback], **small_options)
    assert not (tmp_path / "run").exists()


def test_recipe_is_evaluated_shared_and_continued(tmp_path, small_recipe, small_options):
    run_dir = tmp_path / "run"
    run(small_recipe, run_dir, hours=1e-9, **small_options)
    measured = evaluate(run_dir)["last_epoch"]
    assert measured["epoch"] == 1
    digest = export(run_dir, tmp_path / "run.safetensors", checkpoint=True, quiet=True)
    server = FileServer(tmp_path)
    try:
        server.files["/run.safetensors"] = (tmp_path / "run.safetensors").read_bytes()
        fetched = fetch(f"{server.address}/run.safetensors", digest, tmp_path / "fetched", quiet=True)
    finally:
        server.close()
    assert evaluate(fetched)["last_epoch"] == measured
    result = run(small_recipe, fetched, **small_options)
    assert result.history["epoch"] == [1, 2, 3]


@pytest.mark.parametrize("saved", [None, {}, "06_final", []])
def test_run_json_without_an_experiment_that_came_to_no_checkpoint_stands_in_nobodys_way(
    tmp_path, small_recipe, small_options, saved
):
    run(small_recipe, tmp_path, hours=1e-9, **small_options)
    run_json = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run_json, "experiment": saved}))
    shutil.rmtree(tmp_path / "checkpoints")
    assert run(small_recipe, tmp_path, **{**small_options, "epochs": 1}).complete


# ---- What each ingredient gives.


def test_each_comparison_leaves_out_what_its_name_says(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    ingredients = importlib.import_module("ingredients")
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
