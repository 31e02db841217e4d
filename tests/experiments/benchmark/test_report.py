import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from softbin.experiments.benchmark import report
from softbin.experiments.benchmark.cases import IMPLEMENTATIONS
from softbin.experiments.benchmark.programs import PROGRAMS
from softbin.experiments.benchmark.report import CompileRecord, Record, spread

ENVIRONMENT = {
    "date": "2026-11-23T14:09:09+00:00",
    "device": "cpu",
    "machine": "x86_64",
    "processor": "A Processor",
    "cores": 2,
    "versions": {"softbin": "0.1.0"},
}


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """The axes that are drawn of a benchmark of two lines."""

    def draw(**environment):
        written = []
        monkeypatch.setattr(report, "write_figure", lambda path, figure: written.append(figure))
        times = {"softbin.loss": [1.0, 8.0], "copy": [0.5, 4.0]}
        records = [
            Record("loss", n, 10, name, "cpu", forward_backward_ms=ms)
            for name, both in times.items()
            for n, ms in zip([128, 1024], both, strict=True)
        ]
        report.save_plot(records, {**ENVIRONMENT, **environment}, tmp_path / "bench.png")
        (figure,) = written
        return figure.axes[0]

    return draw


def test_the_picture_names_the_processor(picture):
    assert picture().get_title() == "softbin 0.1.0 on A Processor, 2 cores, 2026-11-23"


def test_a_processor_without_a_name_is_told_by_its_kind(picture):
    assert "x86_64, 2 cores" in picture(processor=None).get_title()


def test_an_accelerator_is_told_by_its_own_name(picture):
    assert picture(device="NVIDIA H100").get_title() == "softbin 0.1.0 on NVIDIA H100, 2026-11-23"


def test_the_picture_says_what_is_copied(picture):
    assert {text.get_text() for text in picture().texts} == {"softbin.loss", "copy: the logits read and written once"}


@pytest.mark.parametrize("case", IMPLEMENTATIONS)
def test_the_widest_numbers_fit_into_the_table(case):
    wide = {"compile_s": 12.345, "ratio": 1234.567, "temporary_bytes": 2**40, "max_error": 1e-7, "sum_error": 2e-7}
    times = {"forward_ms": 1234.567, "forward_backward_ms": 4321.0, "forward_backward_cpu_ms": 8765.0}
    names = IMPLEMENTATIONS[case]
    records = [Record(case, 2, 8, name, "cpu", **times, **wide, cpu_ratio=7654.321) for name in names]
    text = io.StringIO()
    report.show(records, Console(file=text, width=120))
    numbers = {"1234.567", "4321.000", "1234.57", "8765.000", "7654.32", "1,048,576", "1e-07", "2e-07"}
    assert not [each for each in {*names, *numbers, "CPU ms", "of sum"} if each not in text.getvalue()]
    assert "…" not in text.getvalue()


def test_the_longest_names_of_programs_fit_into_the_table():
    wide = {"trace_s": 12.345, "compile_s": 12.345, "instructions": 99_999, "fusions": 9999, "temporary_bytes": 2**28}
    over = {"over_cross_entropy": 12.345, "over_top_k": 123.456, "over_bisection": 9.876}
    records = [CompileRecord(name, "cpu", 5, 12.345, **wide, **over) for name in PROGRAMS]
    text = io.StringIO()
    report.show_compile_times(records, Console(file=text, width=120))
    headings = {"trace", "compile", "total", "HLO", "fusions", "/Optax", "/top_k", "/bits"}
    shown = {*PROGRAMS, *headings, "medians of 5 processes", "99,999", "9,999", "256.00", "12.35", "123.46", "9.88"}
    assert not [each for each in shown if each not in text.getvalue()]
    assert "…" not in text.getvalue()


def test_small_ratios_keep_their_digits():
    text = io.StringIO()
    records = [Record("quantile", 2**22, 1, "softbin.median", "cpu", ratio=0.0083, cpu_ratio=0.25, inputs="peaked")]
    report.show(records, Console(file=text, width=120))
    assert all(each in text.getvalue() for each in ("quantile (peaked): of 4,194,304 values", " 0.0083", " 0.25"))


def test_results_that_were_taken_before_can_be_read():
    taken = json.loads((Path(report.__file__).parents[1] / "results" / "bench_cpu.json").read_text())
    assert {Record(**record).device for record in taken["records"]} == {"cpu"}
    assert all(CompileRecord(**record).total_s > 0 for record in taken.get("compilation", []))


def test_labels_of_lines_are_spread():
    np.testing.assert_allclose(spread([0.0, 0.5, 0.51, 0.9], 0.1), [0, 0.455, 0.555, 0.9])
