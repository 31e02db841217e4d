"""`softbin-sweep`: many training runs, one after the other, from a config with a grid to a folder for each."""

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.experimental.compilation_cache import compilation_cache
from tqdm import tqdm

from softbin.experiments.common import command_line, grids
from softbin.experiments.common import workdir as folder
from softbin.experiments.train import train


def sweep(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> list[dict[str, str]]:
    """Run what is not finished, each run in `workdir/runs/NAME`, and go on past those that fail.

    Runs that differ in the seed alone are one program, which is compiled once for the whole sweep.

    Args:
      config: with a `run` and a `grid`, as :func:`softbin.experiments.common.grids.expand` describes.
      workdir: a folder for the results; it must not hold runs of the same names with other configs.

    Returns:
      The failed runs and their errors, which are also in `workdir/failed.json`; a further sweep tries them again.

    Raises:
      UserError: the config is not a sweep, or the folder is taken or cannot be made. Nothing has been run then.
    """
    workdir = Path(workdir)
    runs = {workdir / folder.RUNS_FOLDER / name: settings for name, settings in grids.expand(config).items()}
    for path, settings in runs.items():
        folder.check(path, settings.to_dict())
    folder.make(workdir)
    (workdir / folder.FAILED_FILE).unlink(missing_ok=True)
    failed: list[dict[str, str]] = []
    bar = tqdm(runs.items(), desc="sweep", unit="run", smoothing=0)
    with _compiled_once(), bar as progress:
        for path, settings in progress:
            progress.set_postfix_str(path.name)
            if (path / folder.SUMMARY_FILE).exists():
                continue
            try:
                train(settings, path)
            except Exception as error:
                failed.append({"run": path.name, "error": f"{type(error).__name__}: {error}"})
                folder.write(workdir / folder.FAILED_FILE, json.dumps(failed, indent=2) + "\n")
            gc.collect()  # a run's data are part of reference cycles
    return failed


@contextmanager
def _compiled_once() -> Iterator[None]:
    """Let JAX keep compiled programs in a temporary folder, and find them there."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory(prefix="softbin-sweep-") as path:
        try:
            _configure(dict(zip(names, (path, 0.1), strict=True)))
            yield
        finally:
            _configure(before)


def _configure(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at these settings once


def _run(config: ml_collections.ConfigDict, workdir: str) -> None:
    failed = sweep(config, workdir)
    for failure in failed:
        print(f"failed: {failure['run']}: {failure['error'].splitlines()[0]}", file=sys.stderr)
    count = len(grids.expand(config))
    print(f"{count - len(failed)} of {count} runs are finished; results in {workdir}")
    if failed:
        sys.exit(1)


def main() -> None:
    """The command."""
    command_line.run(_run, example="configs/large_batch_cpu.py")
