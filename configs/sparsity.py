"""Networks that choose inside, each method at its best settings: a sweep for two CPU cores.

265 runs, five seeds: a sparse autoencoder with 16 of 4,096 latents, a mixture of 32 experts of which an image asks two,
10, 25 and 50 of 784 pixels, and 1, 2 and 5% of the weights of a multilayer perceptron.
"""

import ml_collections

from softbin.experiments.configs import sparse_autoencoder, sparsity_development

CHOSEN: dict[str, dict[str, dict[float, tuple[float, float, float]]]] = {
    "autoencoder": {
        "top_k": {16: (3e-3, 1.0, 0.0)},
        "batch_top_k": {16: (1e-2, 1.0, 0.0)},
        "straight_through": {16: (3e-3, 1.0, 0.0)},
        "straight_through_batch": {16: (1e-2, 3.0, 0.0)},
        "soft": {16: (1e-2, 0.03, 0.0)},
    },
    "experts": {
        "unbalanced": {2: (1e-2, 1.0, 0.0)},
        "auxiliary_loss": {2: (1e-2, 1.0, 1.0)},
        "sign": {2: (1e-2, 1.0, 0.1)},
        "local_quantiles": {2: (1e-2, 1.0, 0.0)},
        "bins": {2: (1e-2, 1.0, 0.0)},
        "exact_quantiles": {2: (1e-2, 1.0, 0.0)},
    },
    "features": {
        "soft": {10: (1e-3, 0.003, 0.0), 25: (3e-3, 0.003, 0.0), 50: (1e-2, 0.01, 0.0)},
        "straight_through": {10: (1e-2, 0.1, 0.0), 25: (3e-3, 0.3, 0.0), 50: (1e-2, 0.3, 0.0)},
        "stochastic_gates": {10: (3e-3, 1.0, 7.0), 25: (3e-3, 1.0, 5.0), 50: (1e-3, 1.0, 3.0)},
        "group_lasso": {10: (1e-2, 1.0, 3.0), 25: (1e-3, 1.0, 1.0), 50: (1e-2, 1.0, 3.0)},
        "forward": {10: (1e-3, 1.0, 0.0), 25: (1e-3, 1.0, 0.0), 50: (1e-3, 1.0, 0.0)},
        "f_test": {10: (1e-3, 1.0, 0.0), 25: (1e-3, 1.0, 0.0), 50: (1e-3, 1.0, 0.0)},
        "variance": {10: (1e-3, 1.0, 0.0), 25: (1e-3, 1.0, 0.0), 50: (1e-3, 1.0, 0.0)},
        "random": {10: (1e-3, 1.0, 0.0), 25: (1e-3, 1.0, 0.0), 50: (1e-3, 1.0, 0.0)},
    },
    "pruning": {
        "global": {0.01: (1e-2, 1.0, 0.0), 0.02: (1e-2, 1.0, 0.0), 0.05: (1e-2, 1.0, 0.0)},
        "by_layer": {0.01: (3e-3, 1.0, 0.0), 0.02: (1e-2, 1.0, 0.0), 0.05: (1e-2, 1.0, 0.0)},
        "at_once": {0.01: (1e-2, 1.0, 0.0), 0.02: (1e-2, 1.0, 0.0), 0.05: (1e-2, 1.0, 0.0)},
        "soft": {0.01: (1e-2, 0.3, 0.0), 0.02: (3e-3, 0.3, 0.0), 0.05: (3e-3, 0.1, 0.0)},
        "straight_through": {0.01: (1e-2, 3.0, 0.0), 0.02: (1e-2, 3.0, 0.0), 0.05: (3e-3, 1.0, 0.0)},
        "dense": {0.01: (3e-3, 1.0, 0.0), 0.02: (3e-3, 1.0, 0.0), 0.05: (3e-3, 1.0, 0.0)},
    },
}
"""Learning rate, temperature and penalty by task, method and budget, as the sweep `sparsity_development` chose them.

They validate best in its seed, on 26 November 2026; `auxiliary_loss` and `sign` where no expert has more than 1.2 times
its share.
"""


def get_config() -> ml_collections.ConfigDict:
    """A block for each task."""
    config = ml_collections.ConfigDict()
    config.run = sparse_autoencoder.get_config()
    config.grid = ml_collections.ConfigDict()
    for task, methods in CHOSEN.items():
        block = config.grid[task] = ml_collections.ConfigDict()
        block.update({**sparsity_development.TASKS[task], "task": (task,), "seed": tuple(range(5))})
        del block.k
        block.variants = tuple(
            {"method": method, "k": float(k), "learning_rate": rate, "temperature": temperature, "penalty": penalty}
            for method, settings in methods.items()
            for k, (rate, temperature, penalty) in settings.items()
        )
    return config
