import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file

from softbin.experiments.boosting import tables
from softbin.experiments.datasets import tables as common_tables
from softbin.experiments.runs.errors import UserError


def test_the_parts_of_a_split_are_disjoint_and_have_the_same_classes():
    split = tables.load("breast_cancer", "", 0, seed=0)
    sizes = [len(rows.labels) for rows in split[:3]]
    assert sizes == [341, 114, 114]
    together = np.concatenate([rows.features for rows in split[:3]])
    everything = tables.breast_cancer()
    assert np.array_equal(np.sort(together, axis=0), np.sort(everything.features, axis=0))
    for rows in split[:3]:
        assert np.mean(rows.labels) == pytest.approx(np.mean(everything.labels), abs=0.005)
    assert split.classes == 2


def test_the_seed_chooses_the_split():
    first, again, other = (tables.load("breast_cancer", "", 0, seed=seed).test.features for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_flights_are_late_from_15_minutes_on(monkeypatch):
    known = common_tables.Flights(
        pd.DataFrame({"distance": [100.0, 200.0]}), np.array([14.0, 15.0]), np.array(["", ""])
    )
    monkeypatch.setattr(common_tables, "flights", lambda: known)
    assert tables.flights().labels.tolist() == [0, 1]


def test_diamonds_are_graded_from_fair_to_ideal(package):
    rows = {"carat": [0.2, 0.3, 0.4], "cut": ["Ideal", "Fair", "Very Good"], "color": "E", "clarity": "SI2"}
    pd.DataFrame(rows).to_csv(package("plotnine") / "diamonds.csv", index=False)
    features, labels, *_ = tables.diamonds.__wrapped__()
    assert labels.tolist() == [4, 0, 2]
    assert list(features) == ["carat", "color", "clarity"]


def test_the_seed_chooses_which_rows_to_train_on(monkeypatch):
    labels = np.tile([0, 1], 50)
    table = common_tables.Table(np.arange(100), labels, validation_from=60, test_from=80)
    monkeypatch.setitem(tables.TABLES, "rows", lambda: table)
    first, again, other = (tables.load("rows", "", 40, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train.features, again.train.features)
    assert set(first.train.features) != set(other.train.features)
    assert len(first.train.labels) == 40
    assert set(first.train.features) < set(range(60))
    assert np.array_equal(first.test.features, np.arange(80, 100))
    with pytest.raises(
        UserError, match=r"train_examples 61 is outside \[0, 60\], the training rows of rows; 0 takes all"
    ):
        tables.load("rows", "", 61, seed=0)


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (1, 2), (1, 2, 3)])
def test_labels_of_libsvm_files_are_counted_from_0(values, tmp_path):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 4)), rng.permutation(np.tile(values, 30 // len(values)))
    dump_svmlight_file(features, labels, str(tmp_path / "file"), zero_based=False)
    split = tables.load("", str(tmp_path / "file"), 0, seed=0)
    assert split.classes == len(values)
    found = tables.read_libsvm(tmp_path / "file")
    assert np.array_equal(np.asarray(values)[found.labels], labels)
    np.testing.assert_allclose(found.features.toarray(), features)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html>not found</html>", "is not a libsvm file"),
        ("1 1:0.5\n1 2:1\n", "has 1 different labels in 2 rows"),
        ("0.1 1:0.5\n0.2 2:1\n0.3 1:1\n", "has 3 different labels in 3 rows"),
        ("1 1:0.5\n1 2:1\n2 1:1\n2 1:2\n", "cannot be split into three parts .* it needs more rows"),
    ],
)
def test_files_that_are_no_classification_are_refused(content, message, tmp_path):
    (tmp_path / "file").write_text(content)
    with pytest.raises(UserError, match=message):
        tables.load("", str(tmp_path / "file"), 0, seed=0)


def test_a_missing_file_and_an_unknown_name_are_explained(tmp_path):
    with pytest.raises(
        UserError, match=r"cannot read .*higgs \(No such file.*\): name a libsvm file with --config.data"
    ):
        tables.load("", str(tmp_path / "higgs"), 0, seed=0)
    with pytest.raises(
        UserError, match=r"unknown dataset 'iris': choose one of breast_cancer, flights, diamonds, .*census, or name"
    ):
        tables.load("iris", "", 0, seed=0)
