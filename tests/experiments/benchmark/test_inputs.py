import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.benchmark.inputs import INPUTS

SHAPE = 2, 20_000


@pytest.fixture(scope="module")
def logits():
    return {kind: make(np.random.default_rng(0), SHAPE) for kind, make in INPUTS.items()}


def test_logits_are_finite_float32_and_differ_by_rows(logits):
    for kind, values in logits.items():
        assert (values.dtype, values.shape) == (np.float32, SHAPE)
        assert np.isfinite(values).all()
        assert (values[0] != values[1]).any(), kind


def test_kinds_are_what_their_names_say(logits):
    assert np.ptp(logits["flat, 1e-3"]) < 0.01 < 2000 * np.ptp(logits["flat, 1e-6"])
    np.testing.assert_array_equal(logits["bfloat16"], logits["bfloat16"].astype(jnp.bfloat16))
    np.testing.assert_allclose(np.sort(np.exp(-logits["Zipf"])), np.tile(np.arange(1.0, SHAPE[1] + 1), (2, 1)), 1e-5)
    assert 0 < np.sum(np.abs(logits["outliers"]) > 1e4) < 20
    peaked = np.exp(logits["peaked"] - logits["peaked"].max(1, keepdims=True))
    assert (np.sort(peaked)[:, -20:].sum(1) > 0.9 * peaked.sum(1)).all()
