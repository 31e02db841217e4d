"""The Python of the README runs from top to bottom and gives what its comments say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from tests.libraries import lightgbm, needs_lightgbm

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture(scope="module")
def readme():
    """What the snippets leave, in the presence of the data and the model that they speak of."""
    key, *keys = jax.random.split(jax.random.key(2), 3)
    centres = 3 * jax.random.normal(key, (3, 4))
    labels = jax.random.randint(keys[0], (512,), 0, 3)
    images = centres[labels] + jax.random.normal(keys[1], (512, 4))
    model = linen.Dense(3)
    params = model.init(key, images)
    names = {
        "classes": 3,
        "images": images,
        "labels": labels,
        "test_images": images,
        "model": model,
        "params": params,
        "train_logits": model.apply(params, images),
        "train_labels": labels,
        "test_logits": model.apply(params, images),
        "router_logits": jax.random.normal(key, (6, 8)),
    }
    for snippet in re.findall(r"```python\n(.*?)```", README, re.S):
        if lightgbm or "import lightgbm" not in snippet:
            exec(snippet, names)
    return names


def test_scores_are_chosen_as_the_first_comments_say(readme):
    for call, comment in re.findall(r"^(softbin\.soft_binary_argmax\(.*?\))  # (\[.*\])$", README, re.M):
        np.testing.assert_allclose(eval(call, readme), np.array(comment.strip("[]").split(), float))


def test_loss_has_a_gradient_and_microbatches_give_the_same(readme):
    whole = jax.value_and_grad(readme["train_loss"])(readme["params"], readme["images"], readme["labels"])
    for a, b in zip(jax.tree.leaves((readme["value"], readme["gradient"])), jax.tree.leaves(whole), strict=False):
        assert np.all(np.isfinite(a))
        assert np.all(np.isfinite(b))


def test_flax_classifier_learns_and_decides(readme):
    assert jnp.mean(readme["predictions"] == readme["labels"]) > 0.95
    undecided = readme["classifier"].linear(readme["images"]).argmax(-1)
    assert jnp.mean(undecided == readme["labels"]) < 0.95


def test_optax_projection_finds_the_best_choice(readme):
    np.testing.assert_allclose(readme["choice"], [0, 1, 0, 1, 0], atol=1e-6)
    assert readme["schedule"](0) == 5


def test_masks_sum_to_k(readme):
    np.testing.assert_allclose(readme["mask"].sum(-1), 2, rtol=1e-5)
    np.testing.assert_array_equal(readme["hard"].sum(-1), np.full(6, 2))


@needs_lightgbm
def test_boosting_decides_well(readme):
    assert np.mean(readme["diagnoses"] != readme["malignant_or_benign"]) < 0.02
