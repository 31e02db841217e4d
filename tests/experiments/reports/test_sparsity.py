import json

import numpy as np
import pytest
from scipy import stats

from softbin.experiments.configs import sparse_autoencoder
from softbin.experiments.reports import run_table
from softbin.experiments.reports.sparsity import chosen_settings, comparison, report

NOISE = np.array([0.0, 0.01, -0.01, 0.02])  # of the seeds, in what is reached
GAINS = np.array([0.10, 0.11, 0.12, 0.11])  # of soft masks over the best filter, by seed


def write_sparsity(workdir, value, measure="accuracy", **changes):
    config = {**sparse_autoencoder.get_config().to_dict(), **changes}
    run = workdir / "runs" / "-".join(str(config[name]) for name in ("task", "method", "k", "temperature", "seed"))
    run.mkdir(parents=True)
    summary = {
        **config,
        **{f"validation_{measure}": value, f"test_{measure}": value},
        **({"dead": 0.25} if config["task"] == "autoencoder" else {}),
        "train_seconds": 1.0,
        "versions": {"softbin": "0.1.0", "jax": "0.10.2"},
        "date": "2026-11-26T12:00:00+00:00",
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def workdir(tmp_path):
    """Soft masks are ahead of the filters at one of two temperatures, and soft codes are behind hard ones."""
    for seed, (noise, gain) in enumerate(zip(NOISE, GAINS, strict=True)):
        features = {"task": "features", "k": 10.0, "seed": seed}
        for temperature, less in ((0.1, 0.0), (0.01, 0.3)):
            write_sparsity(tmp_path, 0.6 + noise + gain - less, method="soft", temperature=temperature, **features)
        write_sparsity(tmp_path, 0.6 + noise, method="l1", **features)
        write_sparsity(tmp_path, 0.5 + noise, method="variance", **features)
        for method, error in (("soft", 0.1 + gain), ("top_k", 0.1)):
            write_sparsity(tmp_path, error + noise, "unexplained", method=method, seed=seed)
    return tmp_path


def test_ours_are_tested_against_the_best_other_method_at_what_validates_best(workdir):
    tests = comparison(chosen_settings(run_table.read_workdir(workdir).table)).set_index(["task", "method"])
    row = tests.loc["features", "soft"]
    assert (row["temperature"], row["best"]) == (0.1, "l1")
    assert row["difference"] == pytest.approx(GAINS.mean())
    t = GAINS.mean() / (GAINS.std(ddof=1) / 2)
    assert row["p_holm"] == pytest.approx(2 * 2 * stats.t.sf(t, 3))  # of two tests
    assert tests.loc[("autoencoder", "soft"), "best"] == "top_k"
    assert tests["difference"].notna().sum() == 2


def test_the_report_says_what_is_ahead_and_what_is_behind(workdir, tmp_path):
    sentences = report(run_table.read_workdir(workdir), "sweep", tmp_path / "out")
    assert sorted(sentences) == [
        "autoencoder, k = 16: test unexplained of soft less that of top_k +0.1100 (corrected p < 0.001).",
        "features, k = 10: test accuracy of soft less that of l1 +0.1100 (corrected p < 0.001).",
    ]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| soft | 0.1 | 0 | 0.001 | 4 | 0.7150 ± 0.0129 | +0.1100 (l1; **< 0.001**) |" in text
    assert "| top_k | 1 | 0 | 0.001 | 4 | 0.1050 ± 0.0129 | – | 0.250 |" in text
    again = run_table.read_results(str(tmp_path / "out" / "runs.csv"))
    assert again.kind.name == "sparsity"
    assert report(again, "csv", tmp_path / "again") == sentences
