import jax
import jax.numpy as jnp
import pytest

from softbin.experiments.benchmark.compiling import Cost, cost, record
from softbin.experiments.benchmark.programs import BISECTION_P, CROSS_ENTROPY, TOP_K, Compiled

FEW = (jax.ShapeDtypeStruct((8,), jnp.float32),)


def test_the_cost_of_a_program_has_all_its_parts():
    measured = cost(Compiled(lambda x: jnp.sum(jnp.exp(x) * x), FEW))
    assert measured.total_s == pytest.approx(measured.trace_s + measured.compile_s)
    assert measured.trace_s > 0 < measured.compile_s
    assert measured.instructions > measured.fusions > 0
    assert measured.temporary_bytes >= 0


def test_a_first_call_is_one_cost():
    called = []
    measured = cost(Compiled(called.append, FEW, first_call=True))
    assert measured == Cost(measured.total_s)
    assert called[0].shape == (8,)


def test_a_program_is_traced_and_compiled_anew():
    calls = []

    @jax.jit
    def inner(x):
        calls.append(x)
        return x + 1

    program = Compiled(lambda x: inner(x), FEW)
    cost(program)
    cost(program)
    assert len(calls) == 2


def test_a_record_has_medians_of_processes_and_of_their_ratios():
    name = "softbin.binary_argmax, columns"
    costs = [
        {name: Cost(total, 1.0, total - 1.0, 300, 20, 64), CROSS_ENTROPY: Cost(entropy), TOP_K: Cost(0.5)}
        for total, entropy in [(2.0, 1.0), (3.0, 1.0), (8.0, 2.0)]
    ]
    found = record(name, "cpu", costs)
    assert found == (name, "cpu", 3, 3.0, 1.0, 2.0, 300, 20, 64, 3.0, 6.0, None)
    assert isinstance(found.fusions, int)


def test_a_record_has_no_ratio_to_what_was_left_out():
    assert record(TOP_K, "cpu", [{TOP_K: Cost(0.5)}]).over_cross_entropy is None
    assert record(CROSS_ENTROPY, "cpu", [{CROSS_ENTROPY: Cost(0.5)}]).over_top_k is None


def test_masks_stand_over_the_bisection_of_bits():
    name = "softbin.sampling.top_p_mask"
    assert record(name, "cpu", [{name: Cost(1.5), BISECTION_P: Cost(0.5)}]).over_bisection == 3
    assert record(BISECTION_P, "cpu", [{BISECTION_P: Cost(0.5)}]).over_bisection == 1
