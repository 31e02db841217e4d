"""Which settings each loss trains with under label noise: a sweep on Fashion-MNIST for two CPU cores.

40% of the labels are replaced by random classes, and the seeds are others than those of the sweep `noise`, which takes
what is chosen here: for each loss the learning rate with the best last accuracy on validation data, whose labels are
noisy too, and for all losses alike what ranks the examples and how fast the kept share falls.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import large_batch_cpu

KEPT = 0.64  # of the labels that are right: a tenth of the replaced ones stay what they were
LOSSES: tuple[dict[str, Any], ...] = (
    {"loss": "cross_entropy"},
    {"loss": "label_smoothing"},
    {"loss": "symmetric_cross_entropy"},
    {"loss": "generalized_cross_entropy"},
    {"loss": "scaled_mse", "temperature": 5.0},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 5.0},
)
TRIMMED: tuple[dict[str, Any], ...] = (
    {"loss": "cross_entropy", "trim": KEPT},
    {"loss": "scaled_mse", "temperature": 5.0, "trim": KEPT},
    {"loss": "hypersimplex", "budget": "0.5", "temperature": 5.0, "trim": KEPT, "trim_by": "scaled_squares"},
)
BY_PROJECTION = {**TRIMMED[-1], "trim_by": "projection"}
RATES = {"cross_entropy": 3e-4, "label_smoothing": 3e-4, "hypersimplex": 3e-4}
"""Of losses of all examples, as chosen on 26 November 2026; that of the others, and of all trimmed ones, is 1e-3."""


def chosen(variant: dict) -> dict:
    """A loss with the learning rate that was chosen for it."""
    return {**variant, "learning_rate": 1e-3 if "trim" in variant else RATES.get(variant["loss"], 1e-3)}


def get_config() -> ml_collections.ConfigDict:
    """A block for learning rates, one for the chosen ones, one for what ranks the examples, and one for the warm-up."""
    config = ml_collections.ConfigDict()
    config.run = large_batch_cpu.get_config().run
    config.run.label_noise = 0.4
    config.grid = ml_collections.ConfigDict()

    config.grid.learning_rate = ml_collections.ConfigDict()
    config.grid.learning_rate.variants = LOSSES + TRIMMED
    config.grid.learning_rate.learning_rate = (3e-4, 1e-3, 3e-3, 1e-2)
    config.grid.learning_rate.seed = (10,)

    config.grid.seeds = ml_collections.ConfigDict()
    config.grid.seeds.variants = tuple(map(chosen, (*LOSSES, *TRIMMED, BY_PROJECTION)))
    config.grid.seeds.seed = (10, 11, 12)

    config.grid.ranking = ml_collections.ConfigDict()
    config.grid.ranking.variants = tuple(
        {**TRIMMED[-1], "temperature": temperature, "trim_by": by}
        for temperature in (1.5, 5.0)
        for by in ("cross_entropy", "scaled_squares", "projection")
    )
    config.grid.ranking.learning_rate = (1e-3,)
    config.grid.ranking.seed = (10, 11)

    config.grid.warmup = ml_collections.ConfigDict()
    config.grid.warmup.variants = TRIMMED
    config.grid.warmup.trim_warmup = (0.0, 0.2, 0.5)
    config.grid.warmup.learning_rate = (1e-3,)
    config.grid.warmup.seed = (10, 11)
    return config
