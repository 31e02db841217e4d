"""`softbin-sweep`: many training runs, one after the other, from a config with a grid to a folder for each."""

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
from tqdm import tqdm

from softbin.experiments.runs import command_line, grids
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import exit_on_user_error
from softbin.experiments.train import train

LEAST_SECONDS = 0.1
"""To compile a program, from which on it is kept for later runs."""


def sweep(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> list[dict[str, str]]:
    """Run what is not finished, each run in `workdir/runs/NAME`, and go on past those that fail.

    Runs that differ in the seed alone are one program, which is compiled once for the whole sweep.

    Args:
      config: with a `run` and a `grid`, as :func:`softbin.experiments.runs.grids.expand` describes.
      workdir: a folder for the results; it must not hold runs of the same names with other configs.

    Returns:
      The failed runs and their errors, which are also in `workdir/failed.json`; a further sweep tries them again.

    Raises:
      UserError: the config is not a sweep, or the folder is taken or cannot be made. Nothing has been run then.
    """
    workdir = Path(workdir)
    runs = _folders(config, workdir)
    remaining = {path: settings for path, settings in runs.items() if not _is_finished(path)}
    for path, settings in runs.items():
        folder.check(path, settings.to_dict())
    folder.make(workdir)
    (workdir / folder.FAILED_FILE).unlink(missing_ok=True)
    failed: list[dict[str, str]] = []
    begun = {"initial": len(runs) - len(remaining), "total": len(runs)}
    bar = tqdm(remaining.items(), desc="sweep", unit="run", smoothing=0, **begun)
    with _compiled_once(), bar as progress:
        for path, settings in progress:
            progress.set_postfix_str(path.name)
            try:
                train(settings, path)
            except Exception as error:
                failed.append({"run": path.name, "error": f"{type(error).__name__}: {error}"})
                folder.write(workdir / folder.FAILED_FILE, json.dumps(failed, indent=2) + "\n")
            gc.collect()  # a run's data are part of reference cycles
    return failed


def _folders(config: ml_collections.ConfigDict, workdir: Path) -> dict[Path, ml_collections.ConfigDict]:
    return {workdir / folder.RUNS_FOLDER / name: settings for name, settings in grids.expand(config).items()}


def _is_finished(path: Path) -> bool:
    return (path / folder.SUMMARY_FILE).exists()


@contextmanager
def _compiled_once() -> Iterator[None]:
    """Let JAX keep compiled programs in a temporary folder, and find them there."""
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory(prefix="softbin-sweep-") as path:
        try:
            _configure(dict(zip(names, (path, LEAST_SECONDS), strict=True)))
            yield
        finally:
            _configure(before)


def _configure(settings: Mapping[str, Any]) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at these settings once


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-sweep",
        "Run every combination in the grid of a config, one after the other. Finished runs are\n"
        "skipped, and one that was cut off goes on from its last checkpoint.",
        "--config=large_batch_cpu --workdir=runs/large_batch",
    )
    parser.add_config("--config.run.epochs=20", described="large_batch_cpu")
    parser.add_argument("--workdir", required=True, help="the folder for the results, with one in it for each run")
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags, config = _parser().parse_with_config(arguments)
    runs = _folders(config, Path(flags.workdir))
    before = sum(map(_is_finished, runs))
    failed = sweep(config, flags.workdir)
    for failure in failed:
        print(f"failed: {failure['run']}: {failure['error'].splitlines()[0]}", file=sys.stderr)
    note = f", {before} of which were finished before" if before else ""
    print(f"{len(runs) - len(failed)} of {len(runs)} runs are finished{note}; results in {flags.workdir}")
    if failed:
        sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
