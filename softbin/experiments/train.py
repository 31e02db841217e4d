"""`softbin-train`: one training run, from a config to a folder of results."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from softbin.experiments.boosting import run as boosting
from softbin.experiments.common import command_line
from softbin.experiments.common import workdir as folder
from softbin.experiments.common.errors import UserError, exit_on_user_error
from softbin.experiments.regression import run as regression
from softbin.experiments.sparsity import run as sparsity
from softbin.experiments.training import run as training


class _Room(NamedTuple):
    """How to run a config, and how to say what came of it."""

    run: Callable[..., dict[str, Any]]
    sentence: Callable[[Mapping[str, Any]], str]


_ROOMS = {
    "booster": _Room(boosting.boost, boosting.sentence),
    "estimator": _Room(regression.regress, regression.sentence),
    "task": _Room(sparsity.train, sparsity.sentence),
}
"""By the field that a config of the room has; without one it is of a network."""


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run what the config is of: boosting has a `booster`, regression an `estimator`, a network that chooses a `task`.

    Raises:
      UserError: as :func:`softbin.experiments.training.run.train`, :func:`softbin.experiments.boosting.run.boost`,
        :func:`softbin.experiments.regression.run.regress` and :func:`softbin.experiments.sparsity.run.train`.
    """
    return _room(config).run(config, workdir)


def _room(config: ml_collections.ConfigDict) -> _Room:
    for field, room in _ROOMS.items():
        if field in config:
            return room
    return _Room(training.train, training.sentence)


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-train",
        "Train a network, boost trees or fit a regression, as a config says. A run that was cut off goes on.",
        "--config=digits --workdir=runs/digits --config.loss=cross_entropy",
    )
    parser.add_config("--config.epochs=10")
    parser.add_argument("--workdir", required=True, help="the folder for the results")
    parser.add_argument(
        "--coordinator_address",
        help="to train with several processes: HOST:PORT of the first one, or auto on a cluster",
    )
    parser.add_argument("--num_processes", type=int, help="how many processes there are; with HOST:PORT")
    parser.add_argument("--process_id", type=int, help="which of them this is, from 0; with HOST:PORT")
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags, config = _parser().parse_with_config(arguments)
    if "grid" in config:
        raise UserError("the config is a sweep, with a run and a grid: give it to softbin-sweep")
    if (flags.coordinator_address, flags.num_processes, flags.process_id) != (None, None, None):
        _join_processes(flags)
    before = folder.finished(Path(flags.workdir), config.to_dict())
    summary = train(config, flags.workdir)
    if jax.process_index() > 0:
        return
    note = "" if before is None else "; the run was finished before"
    print(f"{_room(config).sentence(summary)}{note}; results in {flags.workdir}")


def _join_processes(flags: argparse.Namespace) -> None:
    if flags.coordinator_address is None:
        raise UserError("--num_processes and --process_id go with --coordinator_address=HOST:PORT: give that too")
    if flags.coordinator_address != "auto" and None in (flags.num_processes, flags.process_id):
        raise UserError("--coordinator_address=HOST:PORT goes with --num_processes and --process_id: give them too")
    if flags.coordinator_address == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(flags.coordinator_address, flags.num_processes, flags.process_id)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
