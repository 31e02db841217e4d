"""Soft-Binary-Argmax: choosing k of n, differentiably, and losses that track the zero-one error.

`softbin.regularizers` describes `euclidean`, `binary_entropy` and other regularizers, `softbin.sampling` draws from
long rows, and `softbin.adapters` has layers for Flax, projections for Optax, objectives for LightGBM and XGBoost with a
classifier for scikit-learn, and a loss for Keras.
"""

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
