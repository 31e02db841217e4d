"""Choosing k of n, exactly, on any mesh and with a gradient; and losses, decisions and samples made of such choices.

**Operators**: `k` of `n` entries, softly, so that gradients flow.

- `soft_binary_argmax`: how much of each entry is chosen, between 0 and 1, `k` in all.
- `project_hypersimplex`: the same at temperature 1, as a projection.
- `threshold`: the threshold that separates what is chosen from the rest.
- `softbin.regularizers`, the shapes of the soft choice: `euclidean`, `binary_entropy`, `laplace`, `normal`, `tsallis`,
  or a `Regularizer` of your own.

**Losses** of a classifier, a scorer or a ranker, over a whole batch.

- `loss`: the HyperSimplex loss, which follows the zero-one error; `per_example_loss`: its terms.
- `fenchel_young_loss`: its convex relative.
- `top_k_mean`, `bottom_k_mean`: the mean of the `k` largest or smallest values, for example of losses.
- `softbin.budgets`: how many examples of a class are chosen.
- `softbin.large_batch`: the exact gradient of a large batch, worked out in parts.

**Selection**, exact, without a sort.

- `binary_argmax`: zeros and ones, exactly `k` ones; `top_k`: the `k` largest with their indices, a `Largest`.
- `kth_largest`: the k-th largest score; `cutoff`: the number that exactly `k` scores are above.
- `softbin.routing`: tokens to experts in balance.

**Decisions** of a trained model, and how good they are.

- `decision_thresholds`, `predict`: from logits to classes, as the losses here need it.
- `zero_one_loss`, `precision_at_k`, `recall_at_k`: metrics.
- `diagnose`: what a batch does to the loss, a `Diagnosis`; look here when training stalls.

**Sampling**: `softbin.sampling` has top-k, top-p and min-p, and draws tokens from long rows.

**Quantiles**: `quantile`, `percentile`, `median`, of long and of sharded arrays, exact, or smooth.

**Adapters**: `softbin.adapters` has layers for Flax, projections and pruning for Optax, objectives for LightGBM and
XGBoost, a classifier for scikit-learn, and a loss for Keras.
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

__all__ = [  # noqa: RUF022 (in the order of the docstring, which is that of the pages)
    "soft_binary_argmax",
    "project_hypersimplex",
    "threshold",
    "loss",
    "per_example_loss",
    "fenchel_young_loss",
    "top_k_mean",
    "bottom_k_mean",
    "budgets",
    "large_batch",
    "binary_argmax",
    "top_k",
    "Largest",
    "kth_largest",
    "cutoff",
    "routing",
    "decision_thresholds",
    "predict",
    "zero_one_loss",
    "precision_at_k",
    "recall_at_k",
    "diagnose",
    "Diagnosis",
    "sampling",
    "quantile",
    "percentile",
    "median",
    "euclidean",
    "binary_entropy",
    "laplace",
    "normal",
    "tsallis",
    "Regularizer",
]
