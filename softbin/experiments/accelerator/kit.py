"""The kit's parts, one after the other; each is saved as it ends, and a run that was cut off goes on."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console

import softbin
from softbin.experiments.accelerator import checks, networks, page, programs, timing
from softbin.experiments.accelerator.plan import FULL, SMALL, Plan
from softbin.experiments.benchmark.report import environment
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import UserError

PARTS_FOLDER, RESULT_FILE, PAGE_FILE = "accelerator", "accelerator.json", "accelerator.md"
_ATTEMPTS = 3  # a part that ends the process each time is given up


class Part(NamedTuple):
    """What it is of, and how to do it; it returns records, or the fields of one."""

    subject: Mapping[str, Any]
    run: Callable[[], Any]


def run(workdir: Path, interpret: bool, paper: bool, console: Console) -> None:
    """Do the parts that have not been done, and write what there is after each.

    Raises:
      UserError: there is no accelerator, the folder is of another device or other versions, `paper` finds no images, or
        the device fails for good.
    """
    if not interpret and jax.default_backend() not in ("tpu", "gpu"):
        raise UserError(
            f"there is no TPU or GPU, JAX finds {jax.default_backend()}: install softbin[cuda13] or softbin[tpu], or "
            "try the kit with --interpret"
        )
    plan, parts_folder = SMALL if interpret else FULL, workdir / PARTS_FOLDER
    parts = dict(plan_parts(plan, parts_folder, paper))
    taken = _taken(interpret)
    folder.check(parts_folder, taken)
    folder.start(parts_folder, taken)
    for name, part in parts.items():
        path = parts_folder / f"{name}.json"
        if _is_done(path):
            continue
        console.print(f"{name} ...", highlight=False)
        _do(part, path)
        _write(workdir, parts, interpret)
        if '"error"' in path.read_text() and not _answers():
            raise UserError(f"the device no longer works after {path}: give the command again, it goes on from there")
    _write(workdir, parts, interpret)


def plan_parts(plan: Plan, workdir: Path, paper: bool) -> Iterator[tuple[str, Part]]:
    """The parts by their names, in their order.

    Raises:
      UserError: the paper's runs are asked for, and no images are found.
    """
    for name in plan.regularizers:
        yield f"check_{name}", Part({"check": f"hard cases, {name}"}, partial(checks.hard_cases, plan, name))
    yield "check_ways", Part({"check": "ways of use"}, partial(checks.ways, plan))
    yield "check_choices", Part({"check": "hard choices"}, partial(checks.choices, plan))
    for dtype in plan.dtypes:
        for n, classes in plan.losses:
            do: Callable[[], Any] = partial(programs.losses, plan, n, classes, dtype)
            yield f"loss_{n}x{classes}_{dtype}", Part({"n": n, "classes": classes, "dtype": dtype}, do)
        for length in plan.lengths:
            do = partial(programs.rows, plan, length, dtype)
            subject = {"rows": plan.entries // length, "length": length, "dtype": dtype}
            yield f"rows_{length}_{dtype}", Part(subject, do)
    for rows, length in plan.vocabularies:
        do = partial(programs.masks, plan, rows, length)
        subject = {"rows": rows, "length": length, "dtype": "float32"}
        yield f"masks_{rows}x{length}", Part(subject, do)
    datasets, problem = ([], "None were looked for.") if plan.interpret else networks.found()
    if paper and not datasets:
        raise UserError(f"--paper finds no images; {problem}")
    for dataset in datasets or [networks.RANDOM]:
        for loss in plan.trained:
            do = partial(networks.train, plan, dataset, loss, workdir, paper)
            subject = {"dataset": dataset, "loss": loss, "batch_size": plan.batch_size, "whole": paper}
            if not datasets:
                subject["no_files"] = problem
            yield f"{'paper' if paper else 'network'}_{dataset}_{loss}".replace(" ", "_"), Part(subject, do)


def _taken(interpret: bool) -> dict[str, Any]:
    """What all parts in a folder have in common."""
    versions = {name: version(name) for name in ("jax", "jaxlib", "optax", "flax")}
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "interpret": interpret,
        "softbin": softbin.__version__,
        **versions,
    }


def _is_done(path: Path) -> bool:
    return path.exists() and "attempts" not in json.loads(path.read_text())


def _do(part: Part, path: Path) -> None:
    """Run a part and save it; one that fails is saved with its error."""
    outcome: dict[str, Any]
    attempts = json.loads(path.read_text())["attempts"] if path.exists() else 0
    if attempts == _ATTEMPTS:
        outcome = {"error": f"the process ended in this part {attempts} times; to try again, remove {path}"}
    else:
        _save(path, {"attempts": attempts + 1})
        start = time.perf_counter()
        try:
            outcome = {"result": part.run()}
        except KeyboardInterrupt:
            path.unlink()
            raise
        except Exception as error:  # whatever it is, the next parts may work
            outcome = {"error": timing.named(error)}
        outcome["seconds"] = time.perf_counter() - start
    _save(path, {**part.subject, **outcome})


def _save(path: Path, content: dict[str, Any]) -> None:
    folder.write(path, json.dumps(content, indent=2) + "\n")


def _answers() -> bool:
    """Whether the device works: an error in a kernel may leave it useless to this process."""
    try:
        return float(jnp.ones(8).sum()) == 8
    except Exception:
        return False


def _write(workdir: Path, parts: Iterable[str], interpret: bool) -> None:
    """The figures and the page of all parts in the folder, and of those that are still to be done."""
    paths = sorted((workdir / PARTS_FOLDER).glob("*.json"))
    done = {path.stem: json.loads(path.read_text()) for path in paths if path.name != folder.CONFIG_FILE}
    every = {name: done.pop(name, {}) for name in parts} | done
    figures = {"environment": environment(), "interpret": interpret, "parts": every}
    _save(workdir / RESULT_FILE, figures)
    folder.write(workdir / PAGE_FILE, page.text(figures))
