import json

import pytest

from softbin.experiments.accelerator import networks
from softbin.experiments.accelerator.plan import FULL


@pytest.fixture
def trained(monkeypatch):
    """The config of a run, of which only the results are made up."""
    configs = []

    def train(config, workdir):
        configs.append(config)
        workdir.mkdir()
        records = [{"train_seconds": seconds} for seconds in (30.0, *(30 + 1.4 * n for n in range(1, config.epochs)))]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        fields = {name: config[name] for name in ("dataset", "loss", "batch_size")}
        accuracies = dict.fromkeys(("max_test_accuracy", "last_test_accuracy", "last_test_accuracy_thresholded"), 0.9)
        return {**fields, **accuracies, "train_examples": 60_000}

    monkeypatch.setattr(networks.life, "run", train)
    return configs


def test_a_few_epochs_are_timed(trained, tmp_path):
    result = networks.train(FULL, "fashion_mnist", "cross_entropy", tmp_path, to_the_end=False)
    assert result == {"steps": 7, "milliseconds": pytest.approx(200), "first_epoch_s": 30}
    assert (trained[0].loss, trained[0].epochs, trained[0].batch_size) == ("cross_entropy", FULL.epochs, 8192)


def test_all_epochs_give_accuracies_beside_the_published_ones(trained, tmp_path):
    result = networks.train(FULL, "cifar10", "hypersimplex", tmp_path, to_the_end=True)
    assert trained[0].epochs == 600
    assert trained[0].checkpoint_every > 0
    assert result["max_test_accuracy"] == 0.9
    assert len(result["published_max_test_accuracy"]) == 5
