#!/usr/bin/env bash
# google-tunix 0.1.7 with JAX 0.10.2, Python >= 3.11, CPU.
#
# The temperature of Tunix' `Sampler` is 0.0 unless it is given. Alone that is greedy decoding, but with `top_p` the
# logits are divided by it: positive ones become infinite and tie, so that each token is the first of the vocabulary
# whose logit is positive, whatever the model prefers, the key and the prompt. There is no error and no warning; only
# the log-probabilities, where they are asked for, are NaN. Give `temperature` with `top_p`.
#
# Seen on 2026-11-30 (logits -9, -9, -9, 0.1, 5 and 9 for <pad>, <s>, </s>, bad, so-so, good; four tokens):
#   greedy: good good good good
#   top_p=0.95: bad bad bad bad, log-probabilities [nan, nan, nan, nan]
#   top_p=0.95, temperature=1.0: good good good good
set -euo pipefail
unset PYTHONPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1 ml-dtypes==0.6.0 flax==0.12.8 optax==0.2.8 \
  orbax-checkpoint==0.12.8 jaxtyping==0.3.11 absl-py==2.5.1 'etils[epath]==1.15.0' sentencepiece==0.2.3 pillow==13.0.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps google-tunix==0.1.7

venv/bin/python - <<'PYTHON'
import math
import sys
import types
from importlib.metadata import files

# `import tunix` loads all trainers, and what they need; the sampler needs little.
package = types.ModuleType("tunix")
package.__path__ = [str(next(f for f in files("google-tunix") if f.as_posix() == "tunix/__init__.py").locate().parent)]
sys.modules["tunix"] = package

import jax.numpy as jnp
import sentencepiece
from flax import nnx
from tunix.generate.sampler import CacheConfig, Sampler

WORDS = ["<pad>", "<s>", "</s>", "bad", "so-so", "good"]


class Vocabulary(sentencepiece.SentencePieceProcessor):
    def pad_id(self):
        return 0

    def bos_id(self):
        return 1

    def eos_id(self):
        return 2

    def GetPieceSize(self):
        return len(WORDS)

    def DecodeIds(self, ids):
        return " ".join(WORDS[i] for i in ids)

    def EncodeAsIds(self, text, **_):
        return [WORDS.index(word) for word in text.split()]


class Model(nnx.Module):
    def __init__(self):
        self.logits = nnx.Param(jnp.array([-9.0, -9.0, -9.0, 0.1, 5.0, 9.0]))
        self.num_embed = len(WORDS)

    def __call__(self, tokens, positions, cache=None, attention_mask=None, **_):
        return jnp.broadcast_to(self.logits[...], (*tokens.shape, len(WORDS))), cache


sampler = Sampler(Model(), Vocabulary(), CacheConfig(cache_size=32, num_layers=1, num_kv_heads=1, head_dim=4))
same = True
for name, word, numbers in (
    ("greedy", "good", {}),
    ("top_p=0.95", "bad", {"top_p": 0.95}),
    ("top_p=0.95, temperature=1.0", "good", {"top_p": 0.95, "temperature": 1.0}),
):
    found = sampler(["good"], max_generation_steps=4, seed=0, return_logprobs=True, **numbers)
    logarithms = [float(each) for each in found.logprobs[0]]
    print(f"{name}: {found.text[0]}" + (f", log-probabilities {logarithms}" if word == "bad" else ""))
    same &= found.text[0] == " ".join([word] * 4)
    same &= all(math.isnan(each) == (word == "bad") for each in logarithms)
sys.exit(0 if same else "the behaviour has changed")
PYTHON
