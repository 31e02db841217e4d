"""`softbin-bench`: what the losses cost, beside cross-entropy, other projections and a copy of the same bytes.

Times are medians over rounds. A round times one warm call of every implementation, in a random order, and a ratio is
the median of the rounds' ratios: a machine that slows down slows all of them. A pass forward and backward is
`jax.value_and_grad` by the logits. `copy` reads the logits and writes as many bytes, as any such pass must.

Scale on paper
--------------

With a batch of n examples over P devices, a step of `softbin.loss` takes an all-reduce before the search, one for each
of its rounds (about 3 with k = n/2, 4 or 5 with label counts) and one after it, each of at most 4 numbers per class in
float32; under `jax.jit`, which leaves the order to the compiler, of 4 numbers for each of about a hundred entries
where the classes are fewer. A projection that sorts gathers the logits first, 4 n C (P - 1)/P bytes into each device,
and then holds and sorts the whole batch on every one. For C = 10 classes and k = n/2, bytes per device and step:

    ==========  =============  =================  =======================  ============================
    examples n  gather, P = 8  gather, P = 1,024  5 all-reduces, jax.jit   5 all-reduces, jax.shard_map
    ==========  =============  =================  =======================  ============================
    1e6         35 MB          40 MB              11 kB                    560 B
    1e7         350 MB         400 MB             11 kB                    560 B
    1e8         3.5 GB         4.0 GB             11 kB                    560 B
    1e9         35 GB          40 GB              11 kB                    560 B
    ==========  =============  =================  =======================  ============================

The all-reduces cost their latency alone, and it does not grow with the batch. (On the wire, a ring moves up to twice
an all-reduce's bytes.)
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from softbin.experiments.benchmark.measure import FULL, QUICK, bench
from softbin.experiments.common import command_line
from softbin.experiments.common.errors import exit_on_user_error


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-bench",
        "Time the losses beside cross-entropy and other projections, at sizes from small to large.",
        "--workdir=runs/bench --quick",
    )
    parser.add_argument("--workdir", required=True, help="the folder for bench.json and bench.png")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds, within two minutes")
    return parser


def _run(arguments: Sequence[str] | None) -> None:
    flags = _parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    bench(QUICK if flags.quick else FULL, Path(flags.workdir), console)
    console.print(f"Results in {flags.workdir}.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
