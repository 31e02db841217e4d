"""Which loss when labels are wrong, and how many examples to keep: a sweep on Fashion-MNIST for two CPU cores.

720 runs: six kinds and amounts of noise, twelve losses, ten seeds. Each loss has its learning rate of the sweep
`noise_development`. Three of them also keep the examples with the smallest errors: as many as there are right labels, a
tenth of the batch more or less, or as many of every class.
"""

from typing import Any

import ml_collections

from softbin.experiments.configs import noise_development

RIGHT = {  # the share of right labels by kind and amount of noise; a tenth of the symmetric ones stay what they were
    ("symmetric", 0.2): 0.82,
    ("symmetric", 0.4): 0.64,
    ("symmetric", 0.6): 0.46,
    ("pair", 0.2): 0.8,
    ("pair", 0.4): 0.6,
    ("instance", 0.3): 0.7,
}
SEEDS = tuple(range(10))


def get_config() -> ml_collections.ConfigDict:
    """A block for each kind and amount of noise."""
    config = ml_collections.ConfigDict()
    config.run = noise_development.get_config().run
    config.grid = ml_collections.ConfigDict()
    for (kind, amount), right in RIGHT.items():
        block = config.grid[f"{kind}_{100 * amount:.0f}"] = ml_collections.ConfigDict()
        block.noise_kind = (kind,)
        block.label_noise = (amount,)
        block.variants = losses(right, more=(-0.1, 0.1))
        block.seed = SEEDS
    return config


def losses(right: float, more: tuple[float, ...] = ()) -> tuple[dict[str, Any], ...]:
    """Of all examples, and of as many as there are right labels, so many more, and as many of every class."""
    *others, _ = noise_development.TRIMMED
    by_projection = noise_development.BY_PROJECTION
    variants = (
        *noise_development.LOSSES,
        *({**variant, "trim": right} for variant in (*others, by_projection)),
        *({**by_projection, "trim": round(right + m, 2)} for m in more),
        {**by_projection, "trim": right, "trim_per_class": True},
    )
    return tuple(map(noise_development.chosen, variants))
