"""Probabilities from decisions, scaled by one number: the most likely class is the one that was decided on."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_SLOPES = (-4.0, 6.0)  # their logarithms


class TemperatureScaling:
    """A calibrator: the softmax of `a u`, or the sigmoid of `a (u - half)` for two classes, with one slope `a`.

    The slope is that of the smallest log-loss. One row that belongs to all classes in equal parts is added, so that the
    slope stays finite if all decisions are right. The class of the largest probability is the one that was decided on.

    Attributes:
      half: `ψ⁻¹(1/2)`, above which the second of two classes is decided on.
      slope: as fitted; None before.
    """

    def __init__(self, half: float):
        self.half = half
        self.slope: float | None = None

    def fit(self, scores: Float[np.ndarray, "n scores"], labels: Any, sample_weight: Any = None) -> TemperatureScaling:
        """Find the slope; labels are 0, ..., C-1."""
        logits = self._logits(scores)
        weights = np.ones(len(logits)) if sample_weight is None else np.asarray(sample_weight, float)
        weights = weights / (weights.sum() + 1)
        targets = weights[:, None] * (np.arange(logits.shape[1]) == np.asarray(labels)[:, None])
        targets += (1 - weights.sum()) / targets.size

        def log_loss(log_slope: float) -> float:
            return -np.sum(targets * log_softmax(np.exp(log_slope) * logits, 1))

        self.slope = float(np.exp(minimize_scalar(log_loss, bounds=_SLOPES, method="bounded").x))
        return self

    def predict_proba(self, scores: Float[np.ndarray, "n scores"]) -> Float[np.ndarray, "n classes"]:
        """The probability of each class."""
        return np.exp(log_softmax(self.slope * self._logits(scores), 1))

    def _logits(self, scores: Float[np.ndarray, "n scores"]) -> Float[np.ndarray, "n classes"]:
        scores = np.asarray(scores, float)
        return scores if scores.shape[1] > 1 else np.hstack([np.zeros_like(scores), scores - self.half])
