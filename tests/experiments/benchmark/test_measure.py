import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import softbin
from softbin.experiments.benchmark import cases, programs
from softbin.experiments.benchmark import measure as measuring
from softbin.experiments.benchmark.cases import IMPLEMENTATIONS, make_batch
from softbin.experiments.benchmark.inputs import INPUTS
from softbin.experiments.benchmark.measure import Plan, bench, interleave, measure
from softbin.experiments.benchmark.problems import Implementation, Program, Size
from softbin.experiments.benchmark.report import CompileRecord, Record
from softbin.experiments.runs.errors import UserError

TINY = Plan(
    (
        Size("loss", 32, 10),
        Size("selection", 6, 16),
        Size("hard choice", 6, 64),
        Size("hard choice by columns", 32, 3),
        Size("trimmed mean", 32, 1),
        Size("top-p", 1, 64, "Zipf"),
    ),
    seconds=0.0,
    long_rows_seconds=0.0,
    most_rounds=5,
    slow_seconds=60.0,
    compiled=(programs.CROSS_ENTROPY, programs.TOP_K, "jax.numpy.sort", "jaxopt projection_box_section, loss"),
    compile_processes=1,
)
ISOTONIC = "scipy sort + isotonic_regression"
BASELINE = "optax cross-entropy"


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("name", ["jaxopt projection_box_section", ISOTONIC, "entmax budget_bisect"])
def test_projected_losses_are_the_same_loss(name, classes):
    implementation = IMPLEMENTATIONS["loss"][name]
    if missing := cases.missing_packages(implementation):
        pytest.skip(f"needs {missing}")
    batch = make_batch(Size("loss", 32, classes))
    program = implementation.build(batch)
    value, gradient = jax.value_and_grad(softbin.loss)(*batch)
    np.testing.assert_allclose(program.forward(), value, rtol=1e-5)
    for actual, expected in zip(program.forward_backward(), (value, gradient), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert program.errors().entry < 1e-5


@pytest.mark.parametrize(
    ("name", "same", "tolerance"),
    [
        ("entmax budget_bisect", "softbin.soft_binary_argmax", 1e-5),
        ("LapSum", "softbin.soft_binary_argmax, laplace", 1e-5),
        ("ott-jax topk_mask", "softbin.soft_binary_argmax, entropy", 0.05),
        ("softjax top_k, softsort", None, None),
    ],
)
def test_selections_of_others(name, same, tolerance):
    implementation = IMPLEMENTATIONS["selection"][name]
    if missing := cases.missing_packages(implementation):
        pytest.skip(f"needs {missing}")
    batch = make_batch(Size("selection", 6, 16))
    program = implementation.build(batch)
    gradient = np.asarray(program.forward_backward()[1])
    if same is None:
        assert program.errors().entry is None
        assert np.isfinite(gradient).all()
        assert program.errors().total < 1e-5
    else:
        value, expected = IMPLEMENTATIONS["selection"][same].build(batch).forward_backward()
        np.testing.assert_allclose(program.forward(), value, rtol=tolerance)
        np.testing.assert_allclose(gradient, expected, atol=tolerance * np.abs(expected).max())
        assert program.errors().entry < tolerance


def test_cross_entropy_of_one_class_is_binary():
    batch = make_batch(Size("loss", 32, 1))
    signed = np.where(np.asarray(batch.labels) == 1, batch.logits, -batch.logits)
    value = IMPLEMENTATIONS["loss"][BASELINE].build(batch).forward()
    np.testing.assert_allclose(value, np.log1p(np.exp(-signed)).mean(), rtol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir, text = tmp_path_factory.mktemp("bench") / "new", io.StringIO()
    result = bench(TINY, workdir, Console(file=text, width=120))
    return result, workdir, text.getvalue()


def test_the_results_are_written(run):
    result, workdir, _ = run
    assert json.loads((workdir / "bench.json").read_text()) == result
    assert (workdir / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in workdir.iterdir()} == {"bench.json", "bench.png"}
    environment = result["environment"]
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["versions"]["softbin"] == softbin.__version__
    assert environment["device"] == jax.devices()[0].device_kind
    assert {"date", "platform", "processor", "cores", "python"} < environment.keys()


def test_every_installed_implementation_has_a_record_at_every_size(run):
    result, _, text = run
    records = [Record(**record) for record in result["records"]]
    expected = [(*size[:3], name, size.inputs) for size in TINY.sizes for name in cases.runnable(size)]
    assert [(*record[:4], record.inputs) for record in records] == expected
    for record in records:
        assert record.skipped is None
        assert record.rounds == 5
        assert record.forward_backward_ms > 0 < record.forward_backward_cpu_ms
        assert (record.forward_ms is None) == (record.forward_cpu_ms is None)
        assert record.ratio == record.cpu_ratio == 1 or record.implementation != record.baseline
        assert record.implementation in text
        if record.implementation.startswith("softbin"):
            projects = record.case in ("loss", "selection")
            assert record.max_error <= 1e-6 if projects else record.max_error is None
            assert record.sum_error <= 1e-5 if projects else record.sum_error is None
            assert record.compile_s > 0
            assert record.temporary_bytes > 0
        if record.implementation == ISOTONIC:
            assert record.max_error < 1e-12
            assert record.compile_s is record.temporary_bytes is None
    assert "top-p (Zipf): 1 row of 64 entries" in text
    assert max(map(len, text.splitlines())) <= 120


def test_every_installed_program_is_compiled_in_a_fresh_process(run):
    result, _, text = run
    records = [CompileRecord(**record) for record in result["compilation"]]
    assert [record.program for record in records] == list(programs.installed(TINY.compiled))
    for record in records:
        assert record.processes == 1
        assert record.trace_s + record.compile_s == pytest.approx(record.total_s)
        assert record.instructions > record.fusions >= 0
        assert record.temporary_bytes >= 0
        assert record.program in text
    cross_entropy, top_k, sort, *_ = records
    assert cross_entropy.fusions > top_k.fusions == 0
    assert cross_entropy.over_cross_entropy == top_k.over_top_k == 1
    assert cross_entropy.over_top_k is None
    assert sort.over_cross_entropy == pytest.approx(sort.total_s / cross_entropy.total_s)
    assert sort.over_top_k == pytest.approx(sort.total_s / top_k.total_s)


@pytest.fixture
def nothing_compiled(monkeypatch):
    """Spare the process in which programs are compiled."""
    records = [CompileRecord(programs.TOP_K, "cpu", 1, 0.5)]
    monkeypatch.setattr(measuring, "compile_times", lambda names, processes: records)


@pytest.fixture
def two_implementations(monkeypatch):
    """Only the baseline, which is fast to compile, and one that compiles nothing."""
    few = {name: IMPLEMENTATIONS["loss"][name] for name in (BASELINE, ISOTONIC)}
    monkeypatch.setitem(IMPLEMENTATIONS, "loss", few)
    return few


def test_a_slow_implementation_is_recorded_with_the_reason(two_implementations):
    baseline, isotonic = measure(TINY.sizes[0], TINY._replace(slow_seconds=0.0))
    assert isotonic.skipped == "one call took 0.0 s, more than 0 s"
    assert isotonic.forward_backward_ms is isotonic.max_error is None
    assert baseline.skipped is None


def test_a_slow_baseline_is_timed_once(monkeypatch):
    others = {"fast": Implementation(lambda batch: Program(None, lambda: sum(range(10_000))))}
    slow = Implementation(lambda batch: Program(None, lambda: sum(range(200_000))), may_be_slow=True)
    monkeypatch.setitem(IMPLEMENTATIONS, "loss", {**others, BASELINE: slow})
    fast, baseline = measure(TINY.sizes[0], TINY._replace(slow_seconds=0.0))
    assert (fast.rounds, baseline.rounds, baseline.skipped) == (5, 1, None)
    assert baseline.ratio == baseline.cpu_ratio == 1
    assert fast.ratio == pytest.approx(fast.forward_backward_ms / baseline.forward_backward_ms)
    assert fast.cpu_ratio == pytest.approx(fast.forward_backward_cpu_ms / baseline.forward_backward_cpu_ms)


def test_ratios_are_medians_over_rounds_but_those_that_are_too_short_for_the_clock():
    assert measuring._ratio([(2.0, 1.0), (4.0, 2.0), (9.0, 1.0)]) == 2.0
    assert measuring._ratio([(2.0, 0.0), (4.0, 1.0), (0.0, 0.0)]) == 4.0
    assert measuring._ratio([(0.0, 0.0)]) is None


def test_a_size_that_does_not_fit_into_memory_is_recorded_with_the_reason(nothing_compiled, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "available_bytes", lambda: 2**30)
    plan, text = TINY._replace(sizes=(Size("loss", 2**24, 10),)), io.StringIO()
    result = bench(plan, tmp_path, Console(file=text, width=120))
    reason = "needs about 10.0 GiB of memory, and 1.0 GiB are available"
    assert {record["skipped"] for record in result["records"]} == {reason}
    assert f"skipped all: {reason}" in text.getvalue()


def test_an_implementation_that_does_not_fit_into_memory_is_recorded_with_the_reason(two_implementations, monkeypatch):
    two_implementations["large"] = Implementation(lambda batch: Program(None, pytest.fail, temporary_bytes=2**60))
    monkeypatch.setattr(measuring, "available_bytes", lambda: 2**30)
    *others, large = measure(TINY.sizes[0], TINY)
    assert large.skipped == f"needs about {2**30:.1f} GiB of memory, and 1.0 GiB are available"
    assert all(record.skipped is None for record in others)


def test_missing_packages_are_named(two_implementations, nothing_compiled, tmp_path):
    two_implementations["absent"] = two_implementations[ISOTONIC]._replace(needs=("absent_library",))
    text = io.StringIO()
    result = bench(TINY._replace(sizes=TINY.sizes[:1]), tmp_path, Console(file=text, width=120))
    assert "Not installed, and their implementations left out: " in text.getvalue()
    assert "absent_library" in text.getvalue()
    assert [record["implementation"] for record in result["records"]] == [BASELINE, ISOTONIC]


def test_every_round_calls_every_program_and_warms_it_up():
    calls = []
    programs = {name: Program(None, lambda name=name: calls.append(name)) for name in "abc"}
    times = interleave(programs, seconds=0.0, most_rounds=100)
    assert [len(each.forward_backward) for each in times.values()] == [5, 5, 5]
    rounds = [calls[start : start + 6] for start in range(0, 30, 6)]
    assert all(sorted(each) == list("aabbcc") and each[::2] == each[1::2] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_available_bytes_is_plausible():
    available = measuring.available_bytes()
    assert available is None or 2**20 < available < 2**50


def test_losses_have_even_sizes_for_the_whole_budget_of_isotonic_regression():
    sizes = (*measuring.FULL.sizes, *measuring.QUICK.sizes)
    assert all(size.n % 2 == 0 for size in sizes if size.case == "loss")


def test_every_kind_of_logits_is_measured():
    for case in ("top-k", "top-p"):
        assert {size.inputs for size in measuring.FULL.sizes if size.case == case} == set(INPUTS)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        bench(TINY, tmp_path / "file", Console())
