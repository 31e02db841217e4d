"""Soft-Binary-Argmax: choosing k of n, differentiably, and losses that track the zero-one error.

`softbin.regularizers` describes `euclidean`, `binary_entropy` and other regularizers, `softbin.sampling` draws from
long rows, and `softbin.adapters` has layers for Flax, projections for Optax, objectives for LightGBM and XGBoost with a
classifier for scikit-learn, and a loss for Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softbin import budgets, large_batch, routing, sampling
    from softbin.decisions import Diagnosis, decision_thresholds, diagnose, predict, zero_one_loss
    from softbin.hard_choices import Largest, binary_argmax, cutoff, kth_largest, top_k
    from softbin.losses import fenchel_young_loss, loss, per_example_loss
    from softbin.means import bottom_k_mean, top_k_mean
    from softbin.metrics import precision_at_k, recall_at_k
    from softbin.operators import project_hypersimplex, soft_binary_argmax, threshold
    from softbin.quantiles import median, percentile, quantile
    from softbin.regularizers import Regularizer, binary_entropy, euclidean, laplace, normal, tsallis

__version__ = "0.1.0"

__all__ = [
    "Diagnosis",
    "Largest",
    "Regularizer",
    "binary_argmax",
    "binary_entropy",
    "bottom_k_mean",
    "budgets",
    "cutoff",
    "decision_thresholds",
    "diagnose",
    "euclidean",
    "fenchel_young_loss",
    "kth_largest",
    "laplace",
    "large_batch",
    "loss",
    "median",
    "normal",
    "per_example_loss",
    "percentile",
    "precision_at_k",
    "predict",
    "project_hypersimplex",
    "quantile",
    "recall_at_k",
    "routing",
    "sampling",
    "soft_binary_argmax",
    "threshold",
    "top_k",
    "top_k_mean",
    "tsallis",
    "zero_one_loss",
]

_NAMES = {
    "decisions": ("Diagnosis", "decision_thresholds", "diagnose", "predict", "zero_one_loss"),
    "hard_choices": ("Largest", "binary_argmax", "cutoff", "kth_largest", "top_k"),
    "losses": ("fenchel_young_loss", "loss", "per_example_loss"),
    "means": ("bottom_k_mean", "top_k_mean"),
    "metrics": ("precision_at_k", "recall_at_k"),
    "operators": ("project_hypersimplex", "soft_binary_argmax", "threshold"),
    "quantiles": ("median", "percentile", "quantile"),
    "regularizers": ("Regularizer", "binary_entropy", "euclidean", "laplace", "normal", "tsallis"),
}
"""By the module that has them."""
_MODULES = ("budgets", "large_batch", "routing", "sampling", *_NAMES)


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is first used: that loads JAX, and the help of a command does without."""
    if name in _MODULES:
        return import_module(f"softbin.{name}")
    home = next((module for module, names in _NAMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'softbin' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"softbin.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
