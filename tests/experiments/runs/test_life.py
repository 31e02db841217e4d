import json

import pytest

from softbin.experiments import kinds
from softbin.experiments.runs import config_files, life
from softbin.experiments.runs.errors import UserError
from softbin.experiments.training import run as training

STEPS = 6


class Counting(life.Work):
    """Adds up its steps, and knows a checkpoint by the sum."""

    panels = {"sum": {"sum": "sum"}}  # noqa: RUF012

    def __init__(self, config, stop_at=None):
        super().__init__("counting", "A sum", "step", STEPS, config.evaluate_every)
        self._every, self._stop_at, self._done, self._sum = config.checkpoint_every, stop_at, 0, 0

    def restore(self, checkpoints):
        found = sorted(checkpoints.glob("*")) if checkpoints.exists() else []
        if found:
            self._done, self._sum = json.loads(found[-1].read_text())
        return self._done

    def advance(self):
        self._done += 1
        self._sum += self._done
        if self._done == self._stop_at:
            raise KeyboardInterrupt
        return 1

    def evaluate(self, done):
        return [{"step": done, "sum": float(self._sum)}]

    def save(self, checkpoints, done):
        if done % self._every == 0:
            checkpoints.mkdir(exist_ok=True)
            (checkpoints / str(done)).write_text(json.dumps([done, self._sum]))

    def results(self, history):
        return {"sum": self._sum, "evaluated": len(history)}


@pytest.fixture
def count(monkeypatch):
    """Run what counts in place of a network."""

    def run(workdir, stop_at=None, **changes):
        monkeypatch.setattr(training, "prepare", lambda config: Counting(config, stop_at))
        config = config_files.load("digits", [])
        config.update({"evaluate_every": 2, "checkpoint_every": 3, **changes})
        return life.run(config, workdir)

    return run


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_times(record):
    return {name: value for name, value in record.items() if name not in ("train_seconds", "date")}


def test_a_run_is_recorded_drawn_and_summed_up(count, tmp_path):
    summary = count(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [(record["step"], record["sum"]) for record in records(tmp_path)] == [(2, 3.0), (4, 10.0), (6, 21.0)]
    assert summary["sum"] == 21
    assert summary["hidden"] == [128, 128]
    assert "data_dir" not in summary
    assert set(summary["versions"]) == {"softbin", *kinds.NETWORKS.packages}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_run_that_was_cut_off_says_where_it_goes_on_and_ends_as_one_that_was_not(count, tmp_path, capsys):
    whole = count(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        count(tmp_path / "cut", stop_at=5)
    assert len(records(tmp_path / "cut")) == 2
    assert "cut off" not in capsys.readouterr().err
    again = count(tmp_path / "cut")
    assert f"{tmp_path / 'cut'} was cut off: it goes on from step 3 of 6\n" in capsys.readouterr().err
    assert without_times(again) == without_times(whole)
    assert list(map(without_times, records(tmp_path / "cut"))) == list(map(without_times, records(tmp_path / "whole")))


def test_a_finished_run_is_not_run_again_and_another_config_is_refused(count, tmp_path):
    summary = count(tmp_path)
    assert count(tmp_path, stop_at=1) == summary
    with pytest.raises(UserError, match=r"holds a run of another config \(seed is 0 there and 1 here\)"):
        count(tmp_path, seed=1)


def test_fields_are_checked_before_anything_is_prepared(count, tmp_path):
    with pytest.raises(UserError, match="seed must be at least 0, got -1"):
        count(tmp_path / "run", seed=-1)
    with pytest.raises(UserError, match="learning_rate must be positive and finite, got nan"):
        count(tmp_path / "run", learning_rate=float("nan"))
    assert not (tmp_path / "run").exists()
