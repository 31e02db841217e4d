"""The runs of a sweep: a config that all of them share, and a grid of what varies."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from softbin.experiments.kinds import Field, of
from softbin.experiments.runs.errors import UserError

VARIANTS = "variants"


def expand(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """The runs of a sweep by name, in the order in which to run them.

    `config.run` is a config of `softbin-train`. `config.grid` has a config for each block of the grid, by a name of
    no further meaning. A block is a product: each of its fields is one of the run's with a tuple of values; its field
    `variants` is a tuple of dictionaries, each of fields that vary together:

        config.grid.noise = ml_collections.ConfigDict()
        config.grid.noise.variants = ({"loss": "cross_entropy"}, {"loss": "hypersimplex", "temperature": 5.0})
        config.grid.noise.label_noise = (0.0, 0.4)
        config.grid.noise.seed = (0, 1, 2)

    A run that several blocks have is run once. All runs of the first seed come before those of the next, and the
    variants of otherwise equal runs one after the other, so that a sweep that is cut off is a comparison too. A name
    has the fields of the run's block and variant that vary within the sweep.

    Raises:
      UserError: it is no such config.
    """
    if set(config.keys()) != {"run", "grid"}:
        raise UserError("the config is not a sweep, with a run and a grid: give it to softbin-train")
    changes = [change for name in config.grid for change in _block(config, name)]
    seeds = [change.get("seed", config.run.seed) for change in changes]
    order = {seed: place for place, seed in enumerate(dict.fromkeys(seeds))}
    runs: dict[str, tuple[ml_collections.ConfigDict, dict[str, Any]]] = {}
    for _, change in sorted(zip(seeds, changes, strict=True), key=lambda pair: order[pair[0]]):
        settings = _changed(config.run, change)
        runs.setdefault(json.dumps(settings.to_dict(), sort_keys=True), (settings, change))
    if not runs:
        raise UserError("the grid of the config has no runs: give every field of a block a tuple of values")
    fields = of(config.run).fields
    varying = {field for field in config.run if len({json.dumps(settings[field]) for settings, _ in runs.values()}) > 1}
    named = [
        (_name({f: v for f, v in change.items() if f in varying}, fields), settings)
        for settings, change in runs.values()
    ]
    ((name, count),) = Counter(name.lower() for name, _ in named).most_common(1)
    if count > 1:  # also where a file system does not tell upper from lower case
        raise UserError(f"{count} runs of the grid have the name {name}: make the values of their fields differ more")
    return dict(named)


def _block(config: ml_collections.ConfigDict, name: str) -> Iterator[dict[str, Any]]:
    """What each run of a block changes, its variants in the innermost loop."""
    block = config.grid[name].to_dict()
    variants = block.pop(VARIANTS, ({},))
    for field, values in (*block.items(), (VARIANTS, variants)):
        if not isinstance(values, tuple | list):
            raise UserError(f"config.grid.{name}.{field} is {values!r}: make it a tuple of values")
    for values in itertools.product(*block.values(), variants):
        yield {**values[-1], **dict(zip(block, values[:-1], strict=True))}


def _changed(run: ml_collections.ConfigDict, change: Mapping[str, Any]) -> ml_collections.ConfigDict:
    settings = run.copy_and_resolve_references()
    for field, value in change.items():
        if field not in settings:
            raise UserError(f"the grid of the config varies {field}, which its run does not have")
        try:
            settings[field] = value
        except TypeError as error:
            raise UserError(f"the grid of the config has a value for {field} of another type: {error}") from None
    return settings


def _name(change: Mapping[str, Any], fields: Mapping[str, Field]) -> str:
    """Letters, digits, `.`, `_` and `-`, the loss first and the seed last."""
    told = {name: fields[name].short if name in fields else None for name in change}
    short = {name: name if word is None else word for name, word in told.items()}
    names = sorted(change, key=lambda name: (name == "seed", short[name] != "", name != "loss"))
    parts = [short[name] + _text(change[name]) for name in names]
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(part for part in parts if part)) or "run"


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "x".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
