"""The recipes train the same layers as the final network in another way; an invalid field is refused by name."""

from dataclasses import asdict, replace

import keras
import pytest

from colabcnn import (
    ABLATIONS,
    RECIPES,
    Error,
    build_model,
    find_experiment,
)
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.experiments.experiment import Experiment

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


def test_each_recipe_changes_only_what_its_page_names():
    in_minutes = RECIPES["08_in_minutes"]
    assert changed(FINAL, RECIPES["07_without_luck"]) == {"epochs", "optimizer", "schedule", "precise_batch_norm"}
    assert changed(FINAL, in_minutes) == {
        *("epochs", "optimizer", "schedule", "augmentation", "dropout"),
        *("label_smoothing", "initializer", "batch_norm_momentum"),
    }
    assert changed(in_minutes, RECIPES["08_in_8_epochs"]) == {"epochs"}
    assert changed(in_minutes, RECIPES["09_as_far_as_it_goes"]) == {"epochs", "augmentation"}


def changed(before, after):
    before, after = asdict(before), asdict(after)
    return {field for field in before if before[field] != after[field]} - {"name", "reported"}


def test_recipes_are_found_by_name_and_listed_in_the_error_for_an_unknown_name():
    assert find_experiment("08_in_minutes") is RECIPES["08_in_minutes"]
    with pytest.raises(Error, match=", ".join(EXPERIMENTS)):
        find_experiment("9")
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
