"""scikit-learn's robust linear models, by name."""

from collections.abc import Callable

import jax.numpy as jnp

from softbin.experiments.regression.measures import measures
from softbin.experiments.regression.targets import Split


def huber_regressor(delta: float, seed: int):
    """Huber's loss, whose scale is estimated with the weights, from errors of `delta` in that scale on linear."""
    from sklearn.linear_model import HuberRegressor

    return HuberRegressor(epsilon=delta, max_iter=1000)


def ransac(delta: float, seed: int):
    """Least squares of the rows that agree, up to errors of `delta`, with a fit to a few of them."""
    from sklearn.linear_model import RANSACRegressor

    return RANSACRegressor(residual_threshold=delta, random_state=seed)


MODELS: dict[str, Callable] = {"huber_regressor": huber_regressor, "ransac": ransac}


def fit(name: str, split: Split, delta: float, seed: int) -> dict[str, float]:
    """The measures of a model fitted to the training rows."""
    model = MODELS[name](delta, seed).fit(*split.train)
    return {key: float(value) for key, value in measures(lambda rows: jnp.asarray(model.predict(rows)), split).items()}
