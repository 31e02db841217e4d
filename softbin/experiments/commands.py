"""The console scripts, and what they say where the packages that they need are not installed."""

import importlib
import sys
from functools import partial

PACKAGES = (
    *("absl", "matplotlib", "ml_collections", "orbax", "pandas"),
    *("rich", "scipy", "sklearn", "tensorboardX", "tqdm"),
)
"""What the extra `train` installs, as it is imported."""


def _run(name: str) -> None:
    try:
        importlib.import_module(f"softbin.experiments.{name}").main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        remedy = 'install softbin with its extra "train", in a clone by pip install ".[train]"'
        print(f"error: softbin-{name} needs {package}: {remedy}", file=sys.stderr)
        sys.exit(2)


train, sweep, report, bench = (partial(_run, name) for name in ("train", "sweep", "report", "bench"))
