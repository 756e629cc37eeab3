"""The recipes train the same layers as the final network in another way; an invalid field is refused by name."""

import json
from dataclasses import asdict, replace

import keras
import pytest

from colabcnn import (
    ABLATIONS,
    RECIPES,
    Augmentation,
    Error,
    build_model,
    find_experiment,
)
from colabcnn.experiments.experiment import Experiment
from colabcnn.experiments.ingredients import RiseAndFall

pytestmark = pytest.mark.versions


FINAL = ABLATIONS["06_final"]


def layers_of(model):
    """Return kind, shape and number of parameters of each layer except dropout, whose rate may be 0."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
    return [(type(layer), layer.name, tuple(layer.output.shape), layer.count_params()) for layer in layers]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains_the_layers_of_the_articles_network(name):
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


def test_recipes_are_found_by_name_and_listed_in_the_error_for_an_unknown_name():
    assert find_experiment("08_in_minutes") is RECIPES["08_in_minutes"]
    with pytest.raises(Error, match=r"06_final, 07_without_luck, 08_in_minutes, 08_in_8_epochs\."):
        find_experiment("09")
    with pytest.raises(Error, match="one of its own"):
        find_experiment(replace(RECIPES["08_in_minutes"], dropout=0.5))


def test_new_field_changes_neither_settings_nor_fingerprint_of_earlier_runs():
    settings = RECIPES["08_in_minutes"].settings()
    earlier = {name: value for name, value in settings.items() if name != "precise_batch_norm"}
    assert Experiment.from_settings(earlier) == RECIPES["08_in_minutes"]
    # A field at its default is not in the fingerprint, so a new field with a default changes no fingerprint.
    assert set(ABLATIONS["03_dropout_20"].settings(changed_only=True)) == {"name", "dropout", "augmentation"}
    assert ABLATIONS["03_dropout_20"].settings(changed_only=True)["augmentation"] == {
        "kind": "Augmentation",
        "channel_shift_range": 50.0,
    }


@pytest.mark.parametrize("name", RECIPES)
def test_settings_of_a_recipe_are_the_same_after_json(name):
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
def test_invalid_field_is_refused_by_name(field, value):
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
def test_invalid_field_of_muon_is_refused_by_name(field, value):
    with pytest.raises(Error, match=field):
        replace(RECIPES["08_in_minutes"].optimizer, **{field: value})


def test_invalid_rise_is_refused_by_name():
    with pytest.raises(Error, match=r"rise is 1.0; expected a number from 0 to 0.9"):
        RiseAndFall(rise=1.0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"whole_pixels": 1}, "whole_pixels"),
        ({"fill_mode": "wrap"}, "fill_mode"),
        ({"cutout": 1.5}, "cutout"),
        ({"cutout": 33}, "cutout"),
        ({"alternating_flip": True, "horizontal_flip": False}, "alternating_flip"),
    ],
)
def test_invalid_augmentation_is_refused_by_name(options, field):
    with pytest.raises(Error, match=field):
        Augmentation(**options)
