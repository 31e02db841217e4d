import jax
import pytest

from softbin.experiments.benchmark import measure, peers
from softbin.experiments.benchmark.programs import PROGRAMS, installed


@pytest.mark.parametrize(
    "name", [name for name in PROGRAMS if not name.endswith("12 shapes")]
)  # as of one, slow to trace
def test_programs_can_be_traced(name):
    program = PROGRAMS[name]
    if missing := peers.missing(program.needs):
        pytest.skip(f"needs {missing}")
    assert jax.tree.leaves(jax.eval_shape(program.function, *program.arguments))


def test_a_plan_has_the_programs_that_its_others_are_compared_with():
    for plan in (measure.FULL, measure.QUICK):
        programs = [PROGRAMS[name] for name in plan.compiled]
        compared = {each for program in programs for each in (program.cross_entropy, program.top_k, program.bisection)}
        assert compared - {None} <= set(plan.compiled) <= set(PROGRAMS)


def test_programs_without_their_packages_are_left_out(monkeypatch):
    monkeypatch.setattr(peers, "load", lambda name: None)
    left_out = set(PROGRAMS) - set(installed(PROGRAMS))
    assert left_out == {name for name in PROGRAMS if name.startswith(("jaxopt", "softjax"))}
