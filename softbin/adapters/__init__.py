"""Adapters to other libraries, a module for each; softbin imports none of these modules by itself.

- `softbin.adapters.flax_nnx`, `softbin.adapters.flax_linen`: layers that choose, route and hold decision thresholds.
- `softbin.adapters.optax`: projections, and transformations that keep parameters in the hypersimplex, or prune them.
- `softbin.adapters.keras`: the loss, with a metric, and a layer and a callback for its thresholds.
- `softbin.adapters.gbdt`: the losses as objectives of LightGBM and XGBoost, neither of which it imports.
- `softbin.adapters.sklearn`: a classifier that boosts with these objectives.
"""

__all__ = ["flax_linen", "flax_nnx", "gbdt", "keras", "optax", "sklearn"]
