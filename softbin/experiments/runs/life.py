"""The life of a run: it starts or goes on, is recorded step by step, and ends as a folder of results."""

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_collections
from tqdm import tqdm

import softbin
from softbin.experiments import kinds
from softbin.experiments.runs import settings
from softbin.experiments.runs import workdir as folder

Record = dict[str, Any]
"""What is measured after a step, by name."""


class Work(ABC):
    """What is done in a run; each kind has its own.

    Args:
      name: of the work, beside its progress.
      title: of its picture.
      unit: of its steps.
      steps: how many there are.
      evaluate_every: steps between evaluations; the last one is evaluated too.
    """

    shown: tuple[str, ...] = ()
    """The measures that stand beside the progress."""
    panels: Mapping[str, Mapping[str, str]] = {}
    """Of the picture, as of :func:`softbin.experiments.runs.curves.save_curves`; none for no picture."""
    versions: Mapping[str, str] = {}
    """Of packages that not all runs of the kind use."""

    def __init__(self, name: str, title: str, unit: str, steps: int, evaluate_every: int):
        self.name, self.title, self.unit, self.steps = name, title, unit, steps
        self._evaluate_every = evaluate_every

    def restore(self, checkpoints: Path) -> int:
        """Go on from the newest checkpoint that is whole; how many steps were done then."""
        return 0

    @abstractmethod
    def advance(self) -> int:
        """Do some steps; how many."""

    def is_evaluated(self, done: int) -> bool:
        """Whether there are records after so many steps."""
        return done % self._evaluate_every == 0 or done == self.steps

    @abstractmethod
    def evaluate(self, done: int) -> Sequence[Record]:
        """The records of what was advanced; each says by the unit after how many steps."""

    def save(self, checkpoints: Path, done: int) -> None:
        """Write a checkpoint, where there is one after so many steps."""
        return

    @abstractmethod
    def results(self, history: Sequence[Record]) -> Record:
        """What came of it, beside the fields of the config, the time and the versions."""


def run(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> Record:
    """Run what a config says, and write `metrics.jsonl`, `summary.json`, `curves.png` and TensorBoard events.

    A run that was cut off goes on from its last whole checkpoint and ends with the same results; a finished one is not
    run again. What is wrong with the fields of a config is said before JAX is loaded.

    Args:
      config: of any kind.
      workdir: a folder for the results; it must not hold those of another config.

    Returns:
      The summary: the fields of the config, what came of it, `train_seconds` without the evaluations, and the versions,
      the device and the date.

    Raises:
      UserError: the config is not right, files are missing or damaged, or the folder is taken. Nothing has been written
        then.
    """
    workdir, kind = Path(workdir), kinds.of(config)
    finished = folder.finished(workdir, config.to_dict())
    if finished is not None:
        return finished
    settings.check(config, kind)
    work = kind.load().prepare(config)
    history, seconds = _work_through(work, config.to_dict(), workdir)
    fields = json.loads(json.dumps(config.to_dict()))
    summary = {
        **{name: value for name, value in fields.items() if not kind.fields[name].local},
        **work.results(history),
        "train_seconds": seconds,
        **_stamp(kind.packages, work.versions),
    }
    if _writes():
        if work.panels:
            from softbin.experiments.runs.curves import save_curves

            save_curves(history, work.panels, work.title, workdir / folder.CURVES_FILE, step=work.unit)
        folder.write(workdir / folder.SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return summary


def records(columns: Mapping[str, Any]) -> list[Record]:
    """A record for each epoch, of arrays with an entry for each, by name."""
    values = {name: column.tolist() for name, column in columns.items()}
    epochs = range(len(next(iter(values.values()))))
    return [{"epoch": epoch + 1, **{name: values[name][epoch] for name in values}} for epoch in epochs]


def _work_through(work: Work, config: Mapping[str, Any], workdir: Path) -> tuple[list[Record], float]:
    """The records of all steps, and the seconds that the steps took."""
    writes, checkpoints = _writes(), workdir / folder.CHECKPOINTS_FOLDER
    if writes:
        folder.start(workdir, dict(config))
    done = work.restore(checkpoints)
    before = sum(map(work.is_evaluated, range(1, done + 1)))
    history = folder.read_history(workdir, before) if writes else []
    seconds = history[-1]["train_seconds"] if history else 0.0
    if writes and done:
        tqdm.write(f"{workdir} was cut off: it goes on from {work.unit} {done} of {work.steps}", file=sys.stderr)
    bar = tqdm(
        desc=work.name,
        unit=work.unit,
        initial=done,
        total=work.steps,
        leave=None,  # on the screen, unless it is below another bar
        disable=None if writes else True,
    )
    with bar as progress, _Log(workdir, work.unit, done, writes) as log:
        while done < work.steps:
            start = time.perf_counter()
            advanced = work.advance()
            seconds += time.perf_counter() - start
            done += advanced
            if work.is_evaluated(done):
                records = [{**record, "train_seconds": seconds} for record in work.evaluate(done)]
                history += records
                shown = {name: f"{records[-1][name]:.4f}" for name in work.shown if name in records[-1]}
                progress.set_postfix(shown, refresh=False)
                log.write(records)
            work.save(checkpoints, done)
            progress.update(advanced)
    return history, seconds


class _Log:
    """The records as they come, in `metrics.jsonl` and for TensorBoard."""

    def __init__(self, workdir: Path, unit: str, done: int, writes: bool):
        self._path, self._unit = workdir / folder.METRICS_FILE, unit
        self._board = None
        if writes:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(workdir), purge_step=done + 1)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, records: Sequence[Record]) -> None:
        if self._board is None:
            return
        with open(self._path, "a") as log:
            log.writelines(json.dumps(record) + "\n" for record in records)
        for record in records:
            for name, value in record.items():
                if name not in (self._unit, "train_seconds"):
                    self._board.add_scalar(name, value, record[self._unit])


def _stamp(packages: Sequence[str], others: Mapping[str, str]) -> Record:
    import jax

    return {
        "versions": {"softbin": softbin.__version__, **{name: version(name) for name in packages}, **others},
        "device": jax.devices()[0].device_kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _writes() -> bool:
    import jax

    return jax.process_index() == 0
