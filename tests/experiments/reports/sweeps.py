"""Workdirs of sweeps that were never run, for tests of reports."""

import json

from softbin.experiments.configs import digits

CONFIG = digits.get_config().to_dict() | {
    "train_examples": 1024,
    "validation_examples": 128,
    "hidden": [16, 16],
    "loss": "cross_entropy",
    "batch_size": 32,
    "epochs": 4,
    "evaluate_every": 2,
    "checkpoint_every": 0,
}
VERSIONS = {"softbin": "0.1.0", "jax": "0.10.2", "flax": "0.12.8", "optax": "0.2.8"}


def write_run(workdir, accuracy, thresholded=None, validation=0.5, beside=None, **changes):
    """A finished run whose accuracies are reached in its second evaluation, half a percent above the first.

    `beside` has what else the summary says.
    """
    config = {**CONFIG, **changes}
    fields = ("loss", "budget", "temperature", "trim", "trim_by", "tail", "batch_size", "learning_rate", "seed")
    name = "-".join(str(config[field]) for field in fields)
    run = workdir / "runs" / f"{name}-{config['label_noise']}-{config['noise_kind']}-{config['imbalance']}"
    run.mkdir(parents=True)
    best = {"test_accuracy": accuracy, "validation_accuracy": validation}
    if thresholded is not None:
        best |= {"test_accuracy_thresholded": thresholded, "validation_accuracy_thresholded": validation}
    records = [
        {"epoch": epoch, "loss": 1.0, **{name: value - loss for name, value in best.items()}, "train_seconds": 1.0}
        for epoch, loss in ((2, 0.005), (4, 0.0))
    ]
    summary = {
        **{field: value for field, value in config.items() if field not in ("data_dir", "checkpoint_every")},
        "budget": config["budget"] or None,
        **{f"{which}_{name}": value for name, value in best.items() for which in ("max", "last")},
        **(beside or {}),
        "epoch_of_max": 4,
        "train_seconds": 1.0,
        "versions": VERSIONS,
        "device": "cpu",
        "date": "2026-11-23T12:00:00+00:00",
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run
