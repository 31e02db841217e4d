#!/usr/bin/env bash
# rax 0.4.0 with JAX 0.10.2 (0.12.0.1 prints the same), Python >= 3.11.
#
# rax' ranking metrics break ties by position, unless they are given a random key. Many data sets list the best
# documents first, and there a model whose scores are all equal, or all NaN, has an NDCG, a reciprocal rank and an
# average precision of exactly 1: training that diverges ends with a perfect score. The same lists from worst to best
# give the worst score. With `key=` ties are broken at random, and a model of NaN still gets the score of a guess.
#
# Seen on 2026-11-29 (labels 3, 2, 1, 0, 0; NDCG, MRR, AP):
#   best first, equal scores: 1.000, 1.000, 1.000
#   best first, scores NaN: 1.000, 1.000, 1.000
#   worst first, equal scores: 0.479, 0.250, 0.325
#   worst first, scores NaN: 0.479, 0.250, 0.325
#   best first, scores NaN, 1,000 keys, mean NDCG 0.688
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0 rax==0.4.0

venv/bin/python - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import rax

labels = jnp.array([3.0, 2.0, 1.0, 0.0, 0.0])
relevant = (labels > 1).astype(jnp.float32)
scores = {"equal scores": jnp.zeros(5), "scores NaN": jnp.full(5, jnp.nan)}
same = True
for order, turn in (("best first", slice(None)), ("worst first", slice(None, None, -1))):
    for name, model in scores.items():
        ndcg = float(rax.ndcg_metric(model, labels[turn]))
        others = [float(metric(model, relevant[turn])) for metric in (rax.mrr_metric, rax.ap_metric)]
        print(f"{order}, {name}: " + ", ".join(f"{value:.3f}" for value in (ndcg, *others)))
        expected = 1.0 if order == "best first" else 0.479
        same &= abs(ndcg - expected) < 1e-3
keys = jax.random.split(jax.random.key(0), 1000)
mean = float(jnp.mean(jax.vmap(lambda key: rax.ndcg_metric(scores["scores NaN"], labels, key=key))(keys)))
print(f"best first, scores NaN, 1,000 keys, mean NDCG {mean:.3f}")
same &= 0.6 < mean < 0.9
sys.exit(0 if same else "the behaviour has changed")
PYTHON
