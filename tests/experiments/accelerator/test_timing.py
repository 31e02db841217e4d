import time

import jax
import jax.numpy as jnp
import numpy as np

from softbin.experiments.accelerator import timing
from softbin.experiments.accelerator.timing import measure, records, repeated

SCORES = jnp.asarray(np.random.default_rng(0).standard_normal((16, 128), np.float32))


def test_the_results_are_those_of_a_call():
    labels = jnp.arange(16)

    def function(scores, labels):
        return scores.sum(), {"sorted": jnp.sort(scores), "labels": 2 * labels}

    for actual, expected in zip(
        jax.tree.leaves(repeated(function, (SCORES, labels), 3)), jax.tree.leaves(function(SCORES, labels)), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_every_call_is_made():
    """Though only the results of the last are asked for, and arguments hardly change."""

    def seconds(calls):
        program = jax.jit(lambda scores: repeated(jnp.sort, (scores,), calls)).lower(SCORES).compile()
        times = []
        for _ in range(4):
            start = time.process_time()
            program(SCORES).block_until_ready()
            times.append(time.process_time() - start)
        return min(times[1:])

    assert seconds(400) > 10 * seconds(4)


def test_as_many_calls_as_take_the_time(monkeypatch):
    monkeypatch.setattr(timing, "_seconds", lambda program, arguments: 0.001)  # of every program
    few, many = (measure(jnp.sort, (SCORES,), seconds) for seconds in (0.0, 0.05))
    assert few["calls"] == 4
    assert many["calls"] == 200
    assert few["microseconds"] == 250
    assert many["microseconds"] == 5


def test_what_fails_is_recorded_and_the_others_go_on():
    def fail(scores):
        raise ValueError("two\nlines")

    failed, timed = records({"fail": fail, "sort": jnp.sort}, (SCORES,), 0.0)
    assert failed == {"implementation": "fail", "error": "ValueError: two lines"}
    assert timed["implementation"] == "sort"
    assert timed["microseconds"] > 0
