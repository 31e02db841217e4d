import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng

from softbin.experiments.datasets import tables
from softbin.experiments.regression import targets
from softbin.experiments.regression.targets import corrupted, load
from softbin.experiments.runs.errors import UserError


@pytest.fixture
def table(monkeypatch):
    """30 rows whose target is their number, one of which lacks a feature."""
    number = np.arange(30.0)
    frame = pd.DataFrame({"size": np.where(number == 7, np.nan, number), "color": pd.Categorical(list("abc") * 10)})
    monkeypatch.setitem(targets.TABLES, "rows", lambda: (frame, number))
    return frame


def test_the_parts_are_disjoint_and_chosen_by_the_seed(table):
    split, again, other = (load("rows", 10, 6, default_rng(seed)) for seed in (0, 0, 1))
    assert [len(rows.targets) for rows in split] == [10, 6, 6]
    assert len(set(np.concatenate([rows.targets for rows in split]))) == 22
    np.testing.assert_array_equal(split.test.features, again.test.features)
    assert set(split.test.targets) != set(other.test.targets)


def test_the_training_rows_say_how_features_are_scaled_and_filled_up(table):
    split = load("rows", 16, 7, default_rng(0))
    sizes = table["size"].iloc[split.train.targets.astype(int)]
    filled = sizes.fillna(sizes.median())
    for rows in split:
        number = rows.targets.astype(int)
        expected = (table["size"].iloc[number].fillna(sizes.median()) - filled.mean()) / filled.std(ddof=0)
        np.testing.assert_allclose(rows.features[:, 0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(rows.features[:, 1:], np.eye(3)[number % 3])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_name_that_no_training_row_has_has_a_column_too(table, seed):
    assert load("rows", 2, 14, default_rng(seed)).train.features.shape == (2, 4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shifted_targets_are_too_high_by_five_robust_standard_deviations(share):
    right = default_rng(0).normal(2.0, 3.0, 100_000)
    shifts = corrupted(right, "shifted", share, default_rng(1)) - right
    assert np.count_nonzero(shifts) == round(share * 100_000)
    np.testing.assert_allclose(shifts[shifts != 0], 15.0, rtol=0.02)


def test_random_targets_are_those_of_other_rows():
    right = np.arange(50.0)
    wrong = corrupted(right, "random", 0.3, default_rng(0))
    assert np.sum(wrong != right) == 15
    assert set(wrong) <= set(right)
    assert not np.array_equal(wrong, corrupted(right, "random", 0.3, default_rng(1)))


def test_diamonds_have_the_logarithm_of_their_price(package):
    rows = {"carat": [0.2, 0.3], "cut": ["Ideal", "Fair"], "color": "E", "clarity": "SI2", "price": [100, 1000]}
    pd.DataFrame(rows).to_csv(package("plotnine") / "diamonds.csv", index=False)
    features, prices = targets.diamonds.__wrapped__()
    assert list(features) == ["carat", "cut", "color", "clarity"]
    np.testing.assert_allclose(prices, np.log([100, 1000]))


def test_flights_have_their_delay_at_arrival_and_not_their_destination(monkeypatch):
    features = pd.DataFrame({"dep_delay": [2.0, 30.0], "dest": ["IAH", "MIA"]})
    monkeypatch.setattr(tables, "flights", lambda: tables.Flights(features, np.array([-14.0, 20.0]), np.zeros(2)))
    known, minutes = targets.flights()
    assert list(known) == ["dep_delay"]
    assert minutes.tolist() == [-14, 20]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("iris", 1, 1, default_rng()), "unknown dataset 'iris': choose one of diamonds, flights"),
        (
            lambda: load("rows", 20, 6, default_rng()),
            r"rows has 30 rows, and 20 \+ 2 \* 6 are asked for: lower train_examples or",
        ),
        (
            lambda: corrupted(np.ones(3), "flipped", 0.1, default_rng()),
            "unknown corruption 'flipped': choose one of random, shif",
        ),
        (
            lambda: corrupted(np.ones(3), "random", 1.1, default_rng()),
            r"corrupted must be a share of the targets in \[0, 1\], got",
        ),
    ],
)
def test_what_cannot_be_loaded_is_explained(call, message, table):
    with pytest.raises(UserError, match=message):
        call()
