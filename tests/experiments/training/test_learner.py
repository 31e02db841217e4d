import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin.experiments.training import learner, models, tasks
from tests.experiments.training.test_run import config
from tests.test_sharding import collectives


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_an_epoch_of_the_cnn_is_one_program_but_on_cpu(backend, monkeypatch):
    settings = config(model="cnn", augment=True, train_examples=16, batch_size=8)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    task = tasks.prepare(settings)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    programs = learner.build(task, settings, mesh)
    assert hasattr(programs.train_epoch, "lower") == (backend == "gpu")
    if backend == "gpu":
        changed, metrics = jax.eval_shape(programs.train_epoch, programs.initial, task.dataset)
        chex.assert_trees_all_equal_shapes_and_dtypes(changed, programs.initial)
        assert metrics["loss"].shape == ()


def expected_of_one_device(task, settings):
    """The thresholds of the training set, and for each part the decisions by argmax and with these."""
    model = models.build("mlp", task.dataset.train_images.shape[1:], settings.hidden, 10, jnp.float32, settings.seed)

    @jax.jit
    def evaluate(dataset):
        labels = dataset.train_labels
        thresholds = task.thresholds(model(dataset.train_images), labels, jnp.ones(len(labels), bool), jnp.int32(0))
        decisions = {}
        for part in ("validation", "test"):
            logits = model(getattr(dataset, f"{part}_images"))
            decisions[part] = logits.argmax(-1), softbin.predict(logits, thresholds, settings.temperature)
        return thresholds, decisions

    return jax.device_get(evaluate(jax.tree.map(jnp.asarray, task.dataset)))


@pytest.mark.parametrize(("loss", "at_once"), [("hypersimplex", 1000), ("centred_scaled_mse", 10)])
def test_every_device_evaluates_its_share_of_data_of_any_size(loss, at_once, monkeypatch):
    monkeypatch.setattr(learner, "_EVALUATED_AT_ONCE", at_once)
    settings = config(loss=loss, train_examples=509, validation_examples=100)
    task = tasks.prepare(settings)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    programs = learner.build(task, settings, mesh)
    arguments = jax.device_put((programs.initial, task.dataset), NamedSharding(mesh, PartitionSpec()))
    program = programs.evaluate.lower(*arguments).compile()
    evaluated, metrics = program(*arguments)

    thresholds, decisions = expected_of_one_device(task, settings)
    np.testing.assert_allclose(evaluated.thresholds, thresholds, atol=1e-6)
    for part, labels in (("validation", task.dataset.validation_labels), ("test", task.dataset.test_labels)):
        by_argmax, by_thresholds = decisions[part]
        assert metrics[f"{part}_accuracy_thresholded"] == pytest.approx(np.mean(by_thresholds == labels))
        assert metrics[f"{part}_accuracy"] == pytest.approx(np.mean(by_argmax == labels))

    weights = sum(leaf.size for leaf in jax.tree.leaves(programs.initial.params) if leaf.ndim > 1)
    examples = sum(map(len, task.dataset[1:6:2]))
    assert program.cost_analysis()["flops"] < 1.1 * 2 * weights * examples / 8
    assert {kind for kind, _ in collectives(program.as_text())} == {"all-reduce"}
