"""The six experiments are the article's; each changes the previous one in one respect."""

import json
from dataclasses import FrozenInstanceError, asdict, fields, replace
from functools import partial
from typing import get_args

import numpy as np
import pytest

from colabcnn import ABLATIONS, RECIPES, Adam, Augmentation, Error, Experiment, Muon, RiseAndFall
from colabcnn.experiments.catalog import find_experiment
from colabcnn.training.request import RunRequest

NAMES = (
    "01_descending_kernels",
    "02_augmentation",
    "03_dropout_20",
    "04_dropout_50",
    "05_ascending_kernels",
    "06_final",
)


def changed_fields(before, after):
    before, after = asdict(before), asdict(after)
    return {
        field: (before[field], after[field])
        for field in after
        if before[field] != after[field] and field not in ("name", "reported")
    }


def test_ablations_are_in_the_articles_order_and_read_only():
    assert tuple(ABLATIONS) == NAMES
    assert all(experiment.name == name for name, experiment in ABLATIONS.items())
    with pytest.raises(TypeError):
        ABLATIONS["07"] = ABLATIONS["06_final"]
    with pytest.raises(FrozenInstanceError):
        ABLATIONS["06_final"].dropout = 0.3


def test_each_experiment_changes_exactly_what_the_article_changed():
    one, two, three, four, five, six = ABLATIONS.values()
    assert (one.kernel_sizes, one.dropout, one.augmentation) == ((5, 3, 1), 0.0, None)
    assert set(changed_fields(one, two)) == {"augmentation"}
    assert two.augmentation == Augmentation(20.0, 0.2, 0.2, True, channel_shift_range=0.0)
    assert set(changed_fields(two, three)) == {"dropout", "augmentation"}
    assert three.augmentation == replace(two.augmentation, channel_shift_range=50.0)
    assert changed_fields(three, four) == {"dropout": (0.2, 0.5)}
    assert changed_fields(three, five) == {"kernel_sizes": ((5, 3, 1), (1, 3, 5))}
    assert changed_fields(five, six) == {"dropout": (0.2, 0.25)}


def test_the_articles_best_figures_are_recorded():
    final = ABLATIONS["06_final"].reported
    assert (final.best_val_accuracy, final.best_epoch) == (0.9010, 326)
    assert ABLATIONS["05_ascending_kernels"].reported.best_val_accuracy == 0.8996
    assert [ABLATIONS[name].reported.val_accuracy for name in NAMES[:4]] == [0.75, 0.85, 0.875, None]


def test_settings_of_a_newer_version_are_refused():
    with pytest.raises(Error, match="lookahead"):
        Experiment.from_settings({"name": "x", "lookahead": 0.9})
    with pytest.raises(Error, match="shear_range"):
        Experiment.from_settings({"name": "x", "augmentation": {"kind": "Augmentation", "shear_range": 0.9}})


INVALID = {
    partial(replace, ABLATIONS["06_final"], name="mine"): [
        *(("name", "a/b"), ("kernel_sizes", ()), ("kernel_sizes", (1, 0)), ("filters", (64.0,))),
        *(("dropout", 1.0), ("dropout", "0.2"), ("augmentation", {}), ("augmentation", {"rotation_range": 20})),
        *(("batch_size", 0), ("epochs", -1), ("optimizer", "adam"), ("schedule", "cosine")),
        *(("label_smoothing", -0.1), ("initializer", "zeros"), ("batch_norm_momentum", 1.0), ("precise_batch_norm", 1)),
    ],
    partial(replace, RECIPES["08_in_minutes"].optimizer): [
        *(("adam_learning_rate", 0), ("momentum", 1)),
        *(("newton_schulz_steps", 0), ("newton_schulz_steps", 1000), ("newton_schulz_steps", 2.5)),
    ],
    Adam: [("learning_rate", 0.0)],
    RiseAndFall: [("rise", 1.0)],
    partial(Augmentation, horizontal_flip=False): [
        *(("rotation_range", -1), ("width_shift_range", 20), ("horizontal_flip", 1), ("whole_pixels", 1)),
        *(("fill_mode", "wrap"), ("cutout", 1.5), ("cutout", 33), ("alternating_flip", True)),
    ],
}


@pytest.mark.parametrize(
    ("make", "field", "value"), [(make, *pair) for make, pairs in INVALID.items() for pair in pairs]
)
def test_invalid_field_is_refused_by_name(make, field, value):
    with pytest.raises(Error, match=field):
        make(**{field: value})


REQUIRED = [
    (kind, field.name)
    for kind in (Experiment, Adam, Muon, RiseAndFall, Augmentation, RunRequest)
    for field in fields(kind)
    if type(None) not in get_args(field.type)
    and field.type not in (bool, tuple)
    and field.name not in ("data", "run_dir")
]


@pytest.mark.parametrize(("kind", "field"), REQUIRED, ids=[f"{kind.__name__}.{field}" for kind, field in REQUIRED])
def test_none_is_refused_where_it_has_no_meaning(kind, field):
    given = {"name": "mine"} if kind is Experiment else {}
    given |= {"learning_rate": 0.1, "adam_learning_rate": 0.1} if kind is Muon else {}
    given |= {"experiment": "06_final", "run_dir": "run"} if kind is RunRequest else {}
    with pytest.raises(Error, match="None"):
        kind(**{**given, field: None})


def test_kind_that_settings_do_not_name_is_not_guessed():
    with pytest.raises(Error, match="its optimizer is of kind None"):
        Experiment.from_settings({"name": "x", "optimizer": {"learning_rate": 0.1}})


def test_kernels_too_large_for_the_image_are_refused():
    with pytest.raises(Error, match="leave nothing"):
        replace(ABLATIONS["06_final"], name="mine", kernel_sizes=(5, 5, 5))


def test_variant_needs_its_own_name():
    with pytest.raises(Error, match="one of its own"):
        find_experiment(replace(ABLATIONS["06_final"], dropout=0.3))
    mine = replace(ABLATIONS["06_final"], name="mine", dropout=0.3)
    assert find_experiment(mine) is mine
    with pytest.raises(Error, match="06_final"):
        find_experiment("six")


@pytest.mark.parametrize("name", ABLATIONS)
def test_parameters_are_counted_without_building_the_network(name):
    from colabcnn import build_model

    assert ABLATIONS[name].parameter_count() == build_model(ABLATIONS[name]).count_params()


def test_numbers_of_numpy_become_pythons():
    given = replace(
        ABLATIONS["06_final"],
        name="mine",
        filters=(4, np.int64(8), np.uint8(8)),
        dropout=np.float32(0.5),
        epochs=np.int64(3),
        optimizer=Adam(learning_rate=np.float64(0.01)),
    )
    assert json.loads(json.dumps(given.settings())) == given.settings()
    assert (given.epochs, given.filters, given.dropout) == (3, (4, 8, 8), 0.5)
    assert RunRequest(given, "run", epochs=np.int16(2), seed=np.uint8(1), hours=np.float32(1)).epochs == 2
    assert RunRequest(given, "run", holdout=np.int64(5000)).holdout == 5000
    with pytest.raises(Error, match=r"epochs is 2\.5"):
        RunRequest(given, "run", epochs=np.float64(2.5))
