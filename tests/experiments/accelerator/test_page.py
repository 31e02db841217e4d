import json
from pathlib import Path

from softbin.experiments.accelerator import page, roofline

ENVIRONMENT = {"date": "2026-11-27T00:00:00+00:00", "device": "NVIDIA H100 80GB HBM3", "python": "3.12", "versions": {}}
CHECK = {"implementation": "pallas", "compared": 2, "largest": 0.5, "worst": "k = 1", "tolerance": 1e-6}


def text(device=ENVIRONMENT["device"], **parts):
    return page.text({"environment": {**ENVIRONMENT, "device": device}, "interpret": False, "parts": parts})


def loss(n, *records):
    return {"n": n, "classes": 10, "dtype": "float32", "result": list(records)}


TIMED = {"implementation": "softbin.loss", "microseconds": 71.04}


def test_times_of_two_cores_are_those_of_the_benchmark():
    records = json.loads((Path(page.__file__).parents[1] / "results" / "bench_cpu.json").read_text())["records"]
    losses = {(r["implementation"], (r["n"], r["classes"])): r for r in records if r["case"] == "loss"}
    for name, times in page.CPU.items():
        assert times == {size: round(1e3 * losses[name, size]["forward_backward_ms"]) for size in roofline.SIZES}


def test_times_stand_beside_paper_and_cpu(monkeypatch):
    monkeypatch.setattr(page, "CPU", {"softbin.loss": {(8192, 10): 362, (65_536, 10): 1481}})
    shown = text(
        small=loss(8192, TIMED, {"implementation": "softbin.loss, pallas", "error": "ValueError: no"}),
        large=loss(65_536, {**TIMED, "microseconds": 82.0}),
    )
    for line in (
        "|  | 8,192 x 10 | 65,536 x 10 |",
        "| softbin.loss, float32 | 71.0 | 82.0 |",
        "| softbin.loss, pallas, float32 | failed | – |",
        "| on paper: kernel, float32 | 8.4 | – |",
        "| on paper: XLA, fused, float32 | 69.7 | 74.6 |",
        "| two CPU cores: softbin.loss, float32 | 362 | 1,481 |",
        "- small, softbin.loss, pallas failed: ValueError: no",
    ):
        assert line in shown.splitlines()
    assert "not this device" not in shown


def test_a_device_that_is_not_on_paper_is_said_to_be_none():
    shown = text("NVIDIA A100-SXM4-40GB", small=loss(8192, TIMED))
    assert "On paper there are H100 SXM, H200, TPU v5e, and not this device." in shown
    assert "on paper:" not in shown
    assert "No kernel was seen to run on chip" in shown


def test_what_is_wrong_is_named():
    shown = text(ways={"check": "ways of use", "result": [{**CHECK, "above": {"k = 1": 0.5}, "on_chip": True}]})
    assert "The kernels run on chip." in shown
    assert "| ways of use | pallas | 5.0e-01 | k = 1 | 1 of 2 above 1e-06 |" in shown
    assert "- ways, pallas: k = 1 differs by 5.0e-01" in shown


def test_accuracies_stand_beside_the_published_ones():
    result = {"milliseconds": 12.34, "max_test_accuracy": 0.94, "published_max_test_accuracy": [0.941, 0.9405]}
    run = {"dataset": "fashion_mnist", "loss": "hypersimplex", "batch_size": 8192, "whole": True, "result": result}
    assert "| fashion_mnist | hypersimplex | 8,192 | 12.3 | 0.9400 | 0.9405 to 0.9410 |" in text(run=run)
