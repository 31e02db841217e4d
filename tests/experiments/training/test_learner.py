import chex
import jax
import pytest
from jax.sharding import AxisType

from softbin.experiments.training import learner, tasks
from tests.experiments.training.test_run import config


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
