"""`softbin-bench`: what losses and choices cost, beside cross-entropy, other projections, sorts and bisections.

Times are medians over rounds. A round times one warm call of every implementation, in a random order, and a ratio is
the median of the rounds' ratios: a machine that slows down slows all of them. Beside the clock stands the time of the
processor in all threads of the process, with a ratio of its own: what else runs on the machine changes it less, and on
several cores it is the work and not the wait. On an accelerator it is that of the host. A pass forward and backward is
`jax.value_and_grad` by the logits. `copy` reads the logits and writes as many bytes, as any such pass must.

What it takes to compile comes first, while no program holds the device: medians of five fresh processes, each of which
compiles every program once, in an order of its own and without a cache. Seconds are those of the processor in all
threads, which more cores or other work on the machine change little. Fusions are the loops for which a backend makes
code, one by one. Twelve calls of one shape take less than twelve times one: JAX and XLA do once what they share. A
first call is one outside `jax.jit`. Each total stands over that of Optax' cross-entropy of 8,192 x 10 logits with its
gradient, that of a choice over as many `lax.top_k`, and that of a mask or quantile of long rows over the same by a
bisection of bits.

Long rows are those of a vocabulary: masks for top-p (0.9), top-k (50) and both, with parameters for each row that are
traced, beside a sort and the bisection of the 32 bits of a float that serving engines use, which reads the vocabulary
once for each bit. It is the benchmark's own, along the first axis of the transpose, as theirs; ratios of masks are over
it. `lax.top_k` finds values, not a mask, and its k is static. Ratios of quantiles are over `jax.numpy.quantile`, which
sorts; where one call takes more than four seconds it is called once. Logits are normal unless the title says what else:
peaked, flat about 3, rounded to bfloat16, of Zipf's law, with outliers of a million; those are left to what is fast.

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

A device on paper
-----------------

What value and gradient of `softbin.loss` should take on one device, by its memory (3.35, 4.8 and 0.82 TB/s) and by
what waits for what, with 3 rounds of 3 sums: `softbin.experiments.accelerator.roofline` says what else is assumed, and
`--accelerator` measures it. `least` is what any loss must move, cross-entropy too.

>>> from softbin.experiments.accelerator import roofline
>>> print(roofline.table())
| examples x classes | MB | passes | H100 SXM, µs | H200, µs | TPU v5e, µs |
| --- | ---: | ---: | ---: | ---: | ---: |
| 8,192 x 10, least | 0.7 | 1 | 4 | 4 | 2 |
| 8,192 x 10, kernel | 1.3 | 2 | 8 | 8 | 4 |
| 8,192 x 10, XLA, fused | 2.4 | 6 | 70 | 69 | 12 |
| 8,192 x 10, XLA, not fused | 5.3 | 15 | 107 | 106 | 24 |
| 65,536 x 10, least | 5.5 | 1 | 6 | 5 | 8 |
| 65,536 x 10, XLA, fused | 18.9 | 6 | 75 | 73 | 32 |
| 65,536 x 10, XLA, not fused | 42.5 | 15 | 118 | 114 | 70 |
| 65,536 x 1,000, least | 524.6 | 1 | 161 | 113 | 641 |
| 65,536 x 1,000, XLA, fused | 1,835.5 | 6 | 617 | 451 | 2,250 |
| 65,536 x 1,000, XLA, not fused | 4,194.8 | 15 | 1,357 | 979 | 5,140 |
| 16,777,216 x 1, least | 201.3 | 1 | 64 | 46 | 247 |
| 16,777,216 x 1, XLA, fused | 604.0 | 6 | 249 | 195 | 746 |
| 16,777,216 x 1, XLA, not fused | 1,208.0 | 15 | 466 | 357 | 1,493 |
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softbin.experiments.runs import command_line
from softbin.experiments.runs.errors import UserError, exit_on_user_error


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        "softbin-bench",
        "Time losses and choices, and their compilation, beside cross-entropy, lax.top_k and other projections.",
        "--workdir=runs/bench --quick",
    )
    parser.add_argument("--workdir", required=True, help="the folder for the results")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds, within two minutes")
    parser.add_argument(
        "--accelerator",
        action="store_true",
        help="check and time kernels, losses and the paper's network on a TPU or GPU",
    )
    parser.add_argument("--interpret", action="store_true", help="try --accelerator on any device, small and slow")
    parser.add_argument("--paper", action="store_true", help="with --accelerator, train the network to the end")
    return parser


def _check(flags: argparse.Namespace) -> None:
    for name in ("interpret", "paper"):
        if getattr(flags, name) and not flags.accelerator:
            raise UserError(f"--{name} goes with --accelerator: give that too")
    if flags.accelerator and flags.quick:
        raise UserError("--quick does not go with --accelerator: leave it out, or try the kit with --interpret")
    if flags.interpret and flags.paper:
        raise UserError("--paper trains for hours where kernels are interpreted: leave out --interpret")


def _run(arguments: Sequence[str] | None) -> None:
    flags = _parser().parse_args(arguments)
    _check(flags)
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=120)
    if flags.accelerator:
        from softbin.experiments.accelerator import kit  # loads all that trains

        kit.run(Path(flags.workdir), flags.interpret, flags.paper, console)
    else:
        from softbin.experiments.benchmark.measure import FULL, QUICK, bench

        bench(QUICK if flags.quick else FULL, Path(flags.workdir), console)
    console.print(f"Results in {flags.workdir}.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    exit_on_user_error(partial(_run, arguments))
