import numpy as np
import pytest

from softbin.experiments.kinds import AT_BEST, PARTS
from softbin.experiments.training import precision


def test_precisions_are_of_the_rows_with_the_highest_scores():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=1000), rng.integers(0, 2, 1000)
    first = labels[np.argsort(-scores)]
    found = precision.precisions(scores, labels)
    expected = {f"precision_at_{p}": first[: 10 * p].mean() for p in (1, 2, 5, 10)}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


def test_a_precision_is_of_the_record_where_it_is_highest_on_validation_rows():
    names = ("validation_precision_at_1", "test_precision_at_1", "validation_precision_at_2", "test_precision_at_2")
    history = [dict(zip(names, values, strict=True)) for values in ((0.1, 0.2, 0.4, 0.3), (0.2, 0.1, 0.3, 0.4))]
    for record in history:
        record |= {f"{part}_precision_at_{p}": 0.0 for part in PARTS for p in (5, 10)}
    found = precision.at_best(history)
    assert set(found) == set(AT_BEST)
    assert [found[f"at_max_{name}"] for name in names] == [0.2, 0.1, 0.4, 0.3]
