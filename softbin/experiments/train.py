"""`softbin-train`: one training run, from a config to a folder of results."""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections

from softbin.experiments import kinds
from softbin.experiments.runs import command_line, life
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import UserError, exit_on_user_error


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run what the config is of: boosting has a `booster`, regression an `estimator`, a network that chooses a `task`.

    All else is :func:`softbin.experiments.runs.life.run`.
    """
    return life.run(config, workdir)


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-train",
        "Train a network, boost trees or fit a regression, as a config says. A run that was cut off goes on.",
        "--config=digits --workdir=runs/digits --config.loss=cross_entropy",
    )
    parser.add_config("--config.epochs=10", described="digits")
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
    several = (flags.coordinator_address, flags.num_processes, flags.process_id) != (None, None, None)
    if several:
        _join_processes(flags)
    before = folder.finished(Path(flags.workdir), config.to_dict())
    summary = train(config, flags.workdir)
    if (before is None or several) and not _is_first_process():
        return
    note = "" if before is None else "; the run was finished before"
    print(f"{kinds.of(config).load().sentence(summary)}{note}; results in {flags.workdir}")


def _join_processes(flags: argparse.Namespace) -> None:
    if flags.coordinator_address is None:
        raise UserError("--num_processes and --process_id go with --coordinator_address=HOST:PORT: give that too")
    if flags.coordinator_address != "auto" and None in (flags.num_processes, flags.process_id):
        raise UserError("--coordinator_address=HOST:PORT goes with --num_processes and --process_id: give them too")
    import jax

    if flags.coordinator_address == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(flags.coordinator_address, flags.num_processes, flags.process_id)


def _is_first_process() -> bool:
    import jax

    return jax.process_index() == 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
