"""An epoch's order and transforms are a pure function of seed and epoch, and distributed as Keras draws them."""

from dataclasses import replace

import numpy as np
import pytest

from colabcnn import Augmentation, plan_epoch

pytestmark = pytest.mark.versions

SIZE = 50_000
AUGMENTATION = Augmentation(channel_shift_range=50.0)
# The significance level: a statistical test fails by chance once in 10,000 seeds; the seeds are fixed.
LEVEL = 1e-4
PINNED_ROWS = [5, 3, 7, 2, 4, 1, 0, 6]
PINNED_ROTATION = [2.6238, 17.5209, 10.9572, 5.531, -6.0994, 0.2237, -11.4916, -9.2927]


def test_plan_is_a_repeatable_permutation():
    plan, again = (plan_epoch(3, 5, size=SIZE, augmentation=AUGMENTATION) for _ in range(2))
    assert np.array_equal(np.sort(plan.rows), np.arange(SIZE))
    assert np.array_equal(plan.rows, again.rows)
    assert all(np.array_equal(plan.transforms[name], again.transforms[name]) for name in plan.transforms)


@pytest.mark.parametrize("other", [(3, 6), (4, 5), (5, 3)])
def test_another_seed_or_epoch_gives_another_plan(other):
    plan, changed = (plan_epoch(*key, size=SIZE, augmentation=AUGMENTATION) for key in ((3, 5), other))
    assert (plan.rows != changed.rows).mean() > 0.99
    assert all((plan.transforms[n] != changed.transforms[n]).mean() > 0.4 for n in plan.transforms)


def test_plan_does_not_read_or_change_the_global_generator():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    plan_epoch(0, 1, size=100, augmentation=AUGMENTATION)
    assert np.array_equal(np.random.get_state()[1], before)


def test_plan_is_the_same_in_every_version():
    plan = plan_epoch(0, 1, size=8, augmentation=AUGMENTATION)
    assert plan.rows.tolist() == PINNED_ROWS
    assert plan.transforms["rotation"].tolist() == pytest.approx(PINNED_ROTATION, abs=1e-4)


def test_plan_without_augmentation_is_only_an_order():
    plan = plan_epoch(0, 1, size=10)
    assert np.array_equal(np.sort(plan.rows), np.arange(10))
    assert plan.transforms == {}


# Keras 3 draws `tx` from the height's range but shifts columns by it, and `ty` from the width's range but shifts rows.
# Here each shift is along the axis of its range. In the article the two ranges are equal.
@pytest.mark.parametrize(
    ("ours", "keras_name", "limit"),
    [
        ("rotation", "theta", 20),
        ("row_shift", "tx", 0.2 * 32),
        ("column_shift", "ty", 0.2 * 32),
        ("channel_shift", "channel_shift_intensity", 50),
    ],
)
def test_draws_have_the_distribution_of_keras(ours, keras_name, limit):
    from scipy.stats import ks_2samp

    keras_draws = [parameters[keras_name] for parameters in keras_transforms()]
    draws = plan_epoch(0, 1, size=SIZE, augmentation=AUGMENTATION).transforms[ours]
    assert ks_2samp(draws, keras_draws).pvalue > LEVEL
    assert np.abs(draws).max() == pytest.approx(limit, rel=1e-3)


def test_rows_shift_in_the_range_of_the_height_and_columns_in_that_of_the_width():
    augmentation = Augmentation(height_shift_range=0.25, width_shift_range=0.125)
    transforms = plan_epoch(0, 1, size=SIZE, augmentation=augmentation).transforms
    assert np.abs(transforms["row_shift"]).max() == pytest.approx(8, rel=1e-3)
    assert np.abs(transforms["column_shift"]).max() == pytest.approx(4, rel=1e-3)


def test_half_of_the_images_are_flipped_as_by_keras():
    from scipy.stats import binomtest

    flipped = int(plan_epoch(0, 1, size=SIZE, augmentation=AUGMENTATION).transforms["flip"].sum())
    assert binomtest(flipped, SIZE, 0.5).pvalue > LEVEL
    by_keras = sum(bool(parameters["flip_horizontal"]) for parameters in keras_transforms())
    assert binomtest(by_keras, len(keras_transforms()), 0.5).pvalue > LEVEL


def test_draws_are_independent_of_each_other():
    plan = plan_epoch(0, 1, size=SIZE, augmentation=AUGMENTATION)
    columns = np.stack([plan.rows, *(values.astype(float) for values in plan.transforms.values())])
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert np.abs(correlations).max() < 4.4 / SIZE**0.5  # 15 pairs, together at about LEVEL


def test_whole_pixel_shifts_are_equally_likely():
    from scipy.stats import chisquare

    augmentation = Augmentation(width_shift_range=0.125, height_shift_range=0.0625, whole_pixels=True)
    transforms = plan_epoch(0, 1, size=SIZE, augmentation=augmentation).transforms
    for name, limit in (("column_shift", 4), ("row_shift", 2)):
        values, counts = np.unique(transforms[name], return_counts=True)
        assert values.tolist() == list(range(-limit, limit + 1))
        assert chisquare(counts).pvalue > LEVEL
        assert transforms[name].dtype == np.float32


def test_centre_of_a_cutout_is_uniform_and_changes_no_other_draw():
    from scipy.stats import kstest, spearmanr

    plan = plan_epoch(0, 1, size=SIZE, augmentation=replace(AUGMENTATION, cutout=8))
    row, column = (plan.transforms.pop(f"cutout_{axis}") for axis in ("row", "column"))
    for centre in (row, column):
        assert kstest(centre / 32, "uniform").pvalue > LEVEL
        assert centre.dtype == np.float32
    assert spearmanr(row, column).pvalue > LEVEL
    without = plan_epoch(0, 1, size=SIZE, augmentation=AUGMENTATION)
    assert np.array_equal(plan.rows, without.rows)
    assert all(np.array_equal(values, without.transforms[name]) for name, values in plan.transforms.items())
    assert plan.transforms.keys() == without.transforms.keys()


def test_alternating_flip_flips_each_image_in_every_second_epoch():
    augmentation = replace(AUGMENTATION, alternating_flip=True)
    flips = []
    for epoch in (1, 2, 3):
        plan = plan_epoch(5, epoch, size=SIZE, augmentation=augmentation)
        flips.append(np.empty(SIZE, dtype=bool))
        flips[-1][plan.rows] = plan.transforms["flip"]
    assert np.array_equal(flips[0], ~flips[1])
    assert np.array_equal(flips[0], flips[2])
    assert abs(flips[0].mean() - 0.5) < 4 * 0.5 / SIZE**0.5
    other = plan_epoch(6, 1, size=SIZE, augmentation=augmentation)
    assert 0.4 < (flips[0][other.rows] != other.transforms["flip"]).mean() < 0.6


def keras_transforms(cache=[]):  # noqa: B006  (drawn once)
    if not cache:
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        generator = ImageDataGenerator(
            rotation_range=20,
            width_shift_range=0.2,
            height_shift_range=0.2,
            horizontal_flip=True,
            channel_shift_range=50.0,
        )
        np.random.seed(1)
        cache.extend(generator.get_random_transform((32, 32, 3)) for _ in range(20_000))
    return cache
