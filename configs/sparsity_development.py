"""Which settings each method takes in networks that choose inside: 312 runs for two CPU cores.

The sweep `sparsity` has other seeds, and takes what is chosen here.
"""

from collections.abc import Mapping

import ml_collections

from softbin.experiments.configs import sparse_autoencoder

TASKS: dict[str, dict[str, tuple[float, ...]]] = {
    "autoencoder": {"k": (16.0,), "width": (4096,), "epochs": (8,), "batch_size": (128,)},
    "experts": {"k": (2.0,), "width": (32,), "epochs": (20,), "batch_size": (1024,)},
    "features": {"k": (10.0, 25.0, 50.0), "width": (256,), "epochs": (20,), "batch_size": (512,)},
    "pruning": {"k": (0.01, 0.02, 0.05), "width": (256,), "epochs": (40,), "batch_size": (512,)},
}
"""The budgets and the sizes of each."""
_NO_CHOICE = {"temperature": (1.0,), "penalty": (0.0,)}
_UNTRAINED = {"learning_rate": (1e-3,)}
TRIED: dict[str, dict[str, Mapping[str, tuple[float, ...]]]] = {
    "features": {
        "soft": {"temperature": (0.003, 0.01, 0.03)},
        "straight_through": {"temperature": (0.03, 0.1, 0.3)},
        "stochastic_gates": {"penalty": (2.0, 3.0, 5.0, 7.0, 10.0)},
        "group_lasso": {"penalty": (0.1, 0.3, 1.0, 3.0)},
        "forward": _UNTRAINED,
        "f_test": _UNTRAINED,
        "variance": _UNTRAINED,
        "random": _UNTRAINED,
    },
    "experts": {
        "unbalanced": {},
        "auxiliary_loss": {"penalty": (0.03, 0.1, 0.3, 1.0)},
        "sign": {"penalty": (0.01, 0.03, 0.1)},
        "local_quantiles": {},
        "bins": {},
        "exact_quantiles": {},
    },
    "pruning": {
        "global": {},
        "by_layer": {},
        "at_once": {},
        "soft": {"temperature": (0.01, 0.03, 0.1, 0.3)},
        "straight_through": {"temperature": (0.1, 0.3, 1.0, 3.0)},
        "dense": {},
    },
    "autoencoder": {
        "top_k": {},
        "batch_top_k": {},
        "straight_through": {"temperature": (1.0, 3.0)},
        "straight_through_batch": {"temperature": (1.0, 3.0)},
        "soft": {"temperature": (0.03, 0.1)},
    },
}
"""The temperatures and penalties of each method, each at all `RATES`, of which what is not trained needs one."""
RATES = (1e-3, 3e-3, 1e-2)


def get_config() -> ml_collections.ConfigDict:
    """A block for each task and method."""
    config = ml_collections.ConfigDict()
    config.run = sparse_autoencoder.get_config()
    config.grid = ml_collections.ConfigDict()
    for task, methods in TRIED.items():
        for method, tried in methods.items():
            block = config.grid[f"{task}_{method}"] = ml_collections.ConfigDict()
            block.update({"task": (task,), "method": (method,), **TASKS[task], **_NO_CHOICE})
            block.update({"learning_rate": RATES, **tried})
            block.seed = (10,)
    return config
