"""`softbin-train`: one training run, from a config to a folder of results."""

import os
from typing import Any

import jax
import ml_collections
from absl import flags

from softbin.experiments.boosting import run as boosting
from softbin.experiments.common import command_line
from softbin.experiments.common.errors import UserError
from softbin.experiments.training import run as training


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> dict[str, Any]:
    """Run one training, or boosting where the config has a `booster`.

    Raises:
      UserError: as :func:`softbin.experiments.training.run.train` and :func:`softbin.experiments.boosting.run.boost`.
    """
    return boosting.boost(config, workdir) if "booster" in config else training.train(config, workdir)


def _run(config: ml_collections.ConfigDict, workdir: str) -> None:
    if "grid" in config:
        raise UserError("the config is a sweep, with a run and a grid: give it to softbin-sweep")
    if flags.FLAGS.coordinator_address:
        _join_processes()
    summary = train(config, workdir)
    if jax.process_index() > 0:
        return
    room = boosting if "booster" in config else training
    print(f"{room.sentence(summary)}; results in {workdir}")


def _join_processes() -> None:
    chosen = flags.FLAGS
    if chosen.coordinator_address == "auto":
        jax.distributed.initialize()
    else:
        jax.distributed.initialize(chosen.coordinator_address, chosen.num_processes, chosen.process_id)


def main() -> None:
    """The command."""
    flags.DEFINE_string(
        "coordinator_address", "", "To train with several processes: host:port of the first one, or auto."
    )
    flags.DEFINE_integer("num_processes", None, "How many processes there are; with host:port.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0; with host:port.")
    command_line.run(_run, example="configs/digits.py")
