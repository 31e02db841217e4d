from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import softbin
from softbin import large_batch

EXAMPLES, FEATURES, CLASSES = 26, 5, 3
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.standard_normal((EXAMPLES, FEATURES), np.float32)
LABELS = RANDOM.integers(0, CLASSES, EXAMPLES, np.int32)
PARAMS = {
    "hidden": RANDOM.standard_normal((FEATURES, 8), np.float32),
    "out": RANDOM.standard_normal((8, CLASSES), np.float32),
}


def network(params, inputs):
    return jnp.tanh(inputs @ params["hidden"]) @ params["out"]


def contrastive(logits, labels):
    """A batch-coupled loss that is not ours."""
    return -jnp.mean(jnp.diag(jax.nn.log_softmax(logits @ logits.T))) + jnp.mean(logits[labels] ** 2)


def whole_batch(loss_of_params):
    return jax.jit(jax.value_and_grad(loss_of_params))(PARAMS)


@jax.jit
def value_and_gradient(params, inputs, labels):
    return jax.value_and_grad(lambda params: softbin.loss(network(params, inputs), labels))(params)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("microbatch_size", [1, 8, 13, 26, 100])
def test_value_and_gradient_are_the_whole_batchs_at_any_microbatch_size(microbatch_size):
    step = jax.jit(large_batch.value_and_grad(network, softbin.loss, microbatch_size))
    assert_same(step(PARAMS, INPUTS, LABELS), value_and_gradient(PARAMS, INPUTS, LABELS))


@pytest.mark.parametrize("loss_fn", [softbin.fenchel_young_loss, contrastive])
def test_any_batch_coupled_loss_works(loss_fn):
    whole = whole_batch(lambda params: loss_fn(network(params, INPUTS), LABELS))
    assert_same(jax.jit(large_batch.value_and_grad(network, loss_fn, 8))(PARAMS, INPUTS, LABELS), whole)


def test_keywords_reach_the_loss():
    where = np.arange(EXAMPLES) % 4 != 0
    whole = whole_batch(lambda p: softbin.loss(network(p, INPUTS), LABELS, where=where, temperature=0.7))
    step = jax.jit(large_batch.value_and_grad(network, softbin.loss, 8))
    assert_same(step(PARAMS, INPUTS, LABELS, where=where, temperature=0.7), whole)


def test_auxiliary_data_of_the_loss_is_returned():
    def loss_fn(logits, labels):
        return softbin.loss(logits, labels), softbin.zero_one_loss(logits, labels)

    actual, _ = jax.jit(large_batch.value_and_grad(network, loss_fn, 8, has_aux=True))(PARAMS, INPUTS, LABELS)
    assert_same(actual, jax.jit(lambda: loss_fn(network(PARAMS, INPUTS), LABELS))())


def test_outputs_may_be_a_pytree():
    def outputs_fn(params, inputs):
        return {"logits": network(params, inputs), "features": jnp.sin(inputs @ params["hidden"])}

    def loss_fn(outputs, labels):
        return softbin.loss(outputs["logits"], labels) + jnp.mean(outputs["features"] ** 2)

    whole = whole_batch(lambda params: loss_fn(outputs_fn(params, INPUTS), LABELS))
    assert_same(jax.jit(large_batch.value_and_grad(outputs_fn, loss_fn, 8))(PARAMS, INPUTS, LABELS), whole)


def test_a_key_per_example_makes_dropout_agree():
    keys = jax.random.split(jax.random.key(7), EXAMPLES)

    def dropout_network(params, batch):
        inputs, keys = batch
        kept = jax.vmap(partial(jax.random.bernoulli, p=0.5, shape=(8,)))(keys)
        return jnp.where(kept, jnp.tanh(inputs @ params["hidden"]), 0) @ params["out"]

    whole = whole_batch(lambda params: softbin.loss(dropout_network(params, (INPUTS, keys)), LABELS))
    step = jax.jit(large_batch.value_and_grad(dropout_network, softbin.loss, 8))
    assert_same(step(PARAMS, (INPUTS, keys), LABELS), whole)


def test_activations_take_the_memory_of_a_microbatch():
    wide = {"hidden": np.zeros((FEATURES, 512), np.float32), "out": np.zeros((512, CLASSES), np.float32)}
    inputs, labels = np.zeros((4096, FEATURES), np.float32), np.zeros(4096, np.int32)

    def temporaries(microbatch_size):
        step = jax.jit(large_batch.value_and_grad(network, softbin.loss, microbatch_size))
        return step.lower(wide, inputs, labels).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64) < temporaries(4096) / 5


def test_it_trains_with_optax():
    step = large_batch.value_and_grad(network, softbin.fenchel_young_loss, 8)
    optimizer = optax.adam(0.05)

    @jax.jit
    def update(params, state):
        value, gradient = step(params, INPUTS, LABELS)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params, state, values = PARAMS, optimizer.init(PARAMS), []
    for _ in range(30):
        params, state, value = update(params, state)
        values.append(float(value))
    assert values[-1] < values[0] / 2


def test_a_program_for_any_number_of_examples():
    step = jax.jit(large_batch.value_and_grad(network, softbin.loss, 8))
    (n,) = export.symbolic_shape("n")
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMS)
    batch = jax.ShapeDtypeStruct((n, FEATURES), INPUTS.dtype), jax.ShapeDtypeStruct((n,), LABELS.dtype)
    exported = export.export(step)(specs, *batch)
    for examples in (3, 8, 26):
        batch = INPUTS[:examples], LABELS[:examples]
        assert_same(exported.call(PARAMS, *batch), value_and_gradient(PARAMS, *batch))


def relative_error(gradient, expected):
    gradient, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)]) for x in (gradient, expected))
    return np.linalg.norm(gradient - expected) / np.linalg.norm(expected)


def of_whole_batch():
    return value_and_gradient(PARAMS, INPUTS, LABELS)[1]


def test_accumulated_gradients_are_another_loss():
    """As the docstring warns, and so must not be said to be the same."""
    optimizer = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2)

    @jax.jit
    def two_steps():
        params, state = PARAMS, optimizer.init(PARAMS)
        for part in (slice(13), slice(13, None)):
            _, gradient = value_and_gradient(params, INPUTS[part], LABELS[part])
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.map(jnp.subtract, PARAMS, params)

    assert relative_error(two_steps(), of_whole_batch()) > 0.1


@pytest.mark.skipif(not hasattr(optax, "microbatching"), reason="Optax has it from 0.2.7 on")
def test_microbatches_of_optax_are_exact_where_they_are_put_together_before_the_loss():
    kinds = optax.microbatching.AccumulationType

    def loss_of(params, inputs, labels):
        return softbin.loss(network(params, inputs), labels)

    @jax.jit
    def gradients():
        accumulated = [
            optax.microbatching.microbatch(
                jax.grad(loss_of), argnums=(1, 2), microbatch_size=13, accumulator=accumulator
            )(PARAMS, INPUTS, LABELS)
            for accumulator in (kinds.MEAN, kinds.SUM)
        ]
        forward = optax.microbatching.microbatch(
            jax.checkpoint(network), argnums=1, microbatch_size=13, accumulator=kinds.CONCAT
        )
        return accumulated, jax.grad(lambda params: softbin.loss(forward(params, INPUTS), LABELS))(PARAMS)

    accumulated, exact = gradients()
    assert min(relative_error(gradient, of_whole_batch()) for gradient in accumulated) > 0.1
    assert relative_error(exact, of_whole_batch()) < 1e-5


def test_a_microbatch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="microbatch_size must be at least 1, got 0"):
        large_batch.value_and_grad(network, softbin.loss, 0)


def test_inputs_of_different_lengths_are_refused():
    step = large_batch.value_and_grad(lambda params, batch: batch[0], softbin.loss, 8)
    with pytest.raises(ValueError, match=r"inputs must have the same number of examples .* got \[25, 26\]"):
        step(PARAMS, (INPUTS, INPUTS[1:]), LABELS)


def test_outputs_that_lose_the_examples_are_refused():
    step = large_batch.value_and_grad(lambda params, inputs: network(params, inputs).mean(0), softbin.loss, 8)
    with pytest.raises(ValueError, match=r"outputs of logits_fn must have the microbatch's 8 examples .* got \[3\]"):
        step(PARAMS, INPUTS, LABELS)


@pytest.mark.parametrize(("leaf", "dtype"), [(jnp.array(3), "int32"), (True, "bool")])
def test_parameters_without_a_gradient_are_named(leaf, dtype):
    step = large_batch.value_and_grad(network, softbin.loss, 8)
    with pytest.raises(TypeError, match=rf"params\['step'\] is {dtype}, .* keep it out of params"):
        step({**PARAMS, "step": leaf}, INPUTS, LABELS)


@pytest.mark.parametrize(
    ("message", "inputs"),
    [
        (r"inputs hold no examples, got shapes \[\(0, 5\)\]: leave out a step", INPUTS[:0]),
        (r"inputs must have the examples on the first axis .* got a scalar: repeat it", (INPUTS, 3.0)),
        (r"inputs must have the same number of examples .* got \[\]", {}),
    ],
    ids=["empty", "scalar", "nothing"],
)
def test_inputs_without_examples_are_refused(message, inputs):
    with pytest.raises(ValueError, match=message):
        large_batch.value_and_grad(network, softbin.loss, 8)(PARAMS, inputs, LABELS)
