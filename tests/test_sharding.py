"""A batch spread over devices gives the value and the gradient of the batch in one place."""

import re
from contextlib import nullcontext
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import large_batch
from tests.batch import CLASSES, LABELS, LOGITS, LOSSES, WHERE, diagnosis, value_and_gradient
from tests.compiling import AS_USERS_DO

DEVICES = 8
MESHES = {
    kind.name: jax.make_mesh((DEVICES,), ("batch",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit)
}
MESH = MESHES["Auto"]
MOST_NUMBERS = 8 * (CLASSES + 256)  # in small batches some hundred entries of a row are summed side by side
SPLIT, WHOLE = PartitionSpec("batch"), PartitionSpec()
EYE = np.eye(CLASSES, dtype=np.float32)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, float), np.asarray(b, float)
        assert np.max(np.abs(a - b)) <= 1e-6 * np.max(np.abs(b))


def put(array, kind="Auto", spec=SPLIT):
    return None if array is None else jax.device_put(array, NamedSharding(MESHES[kind], spec))


def collectives(program: str) -> list[tuple[str, int]]:
    """Kind and number of elements of every collective in the text of a compiled program."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program)
    return [
        (
            kind,
            sum(int(np.prod([int(d) for d in dims.split(",") if d])) for dims in re.findall(r"\[([\d,]*)\]", shapes)),
        )
        for shapes, kind in found
    ]


def loops(program: str) -> str:
    """What the program repeats."""
    bodies = set(re.findall(r"body=%?([\w.-]+)", program))
    computations = re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    return "".join(content for name, content in computations if name in bodies)


each_loss_and_mask = pytest.mark.parametrize(  # the other pairs are in test_processes.py
    ("name", "mask"),
    [("loss", "even"), ("loss", "uneven"), ("loss, label_count", "uneven"), ("fenchel_young_loss", "even")],
)


@cache
def in_one_place(name, mask):
    return jax.jit(partial(value_and_gradient, LOSSES[name]))(LOGITS, LABELS, WHERE[mask])


@each_loss_and_mask
def test_jit_of_a_sharded_batch_needs_no_help(name, mask):
    where = WHERE[mask]
    options = AS_USERS_DO if (name, mask) == ("loss, label_count", "uneven") else None
    function = jax.jit(partial(value_and_gradient, LOSSES[name]), compiler_options=options)
    program = function.lower(put(LOGITS), put(LABELS), put(where)).compile()
    assert_same(program(put(LOGITS), put(LABELS), put(where)), in_one_place(name, mask))
    assert {kind for kind, _ in collectives(program.as_text())} == {"all-reduce"}
    assert max(size for _, size in collectives(program.as_text())) <= MOST_NUMBERS


@each_loss_and_mask
def test_shard_map_with_an_axis_name(name, mask):
    where = WHERE[mask]
    sharded = jax.jit(
        jax.shard_map(
            partial(value_and_gradient, LOSSES[name], axis_name="batch"),
            mesh=MESH,
            in_specs=(SPLIT, SPLIT, WHOLE if where is None else SPLIT),
            out_specs=(WHOLE, SPLIT),
        )
    )
    program = sharded.lower(LOGITS, LABELS, where).compile()
    assert_same(program(LOGITS, LABELS, where), in_one_place(name, mask))
    assert {kind for kind, _ in collectives(program.as_text())} == {"all-reduce"}
    assert max(size for _, size in collectives(program.as_text())) <= MOST_NUMBERS


@pytest.mark.parametrize("name", ["loss", "loss, label_count"])
def test_explicit_axes_need_no_help(name):
    function = jax.jit(partial(value_and_gradient, LOSSES[name]))
    actual = function(*(put(array, "Explicit") for array in (LOGITS, LABELS, WHERE["uneven"])))
    assert_same(actual, in_one_place(name, "uneven"))
    assert actual[1].sharding.spec == PartitionSpec("batch", None)


COUNTS = np.float32([200, 300, 250, 350, 220])


def gradients_of_counts(logits, labels, counts, budget_of=lambda counts: counts):
    by_logits = jax.value_and_grad(lambda logits: softbin.loss(logits, labels, budget=budget_of(counts)))(logits)
    by_counts = jax.grad(lambda counts: softbin.fenchel_young_loss(logits, labels, budget=budget_of(counts)))(counts)
    return by_logits, by_counts


def thresholds_of_counts(logits, labels, counts, budget_of=lambda counts: counts):
    return softbin.decision_thresholds(logits, labels, budget=budget_of(counts), temperature=1.5)


@cache
def of_counts(function):
    return jax.tree.map(np.asarray, jax.jit(function)(LOGITS, LABELS, COUNTS))


def captured(counts):
    return lambda targets, weights: counts


def worked_out(counts):
    return lambda targets, weights: counts * weights.sum() / len(LABELS)


def with_another_budget(counts):
    return lambda targets, weights: counts + 0 * softbin.budgets.label_count(targets, weights)


@pytest.mark.parametrize(
    ("kind", "budget_of", "in_mesh"),  # without explicit axes it is no matter what a budget closes over
    [
        ("Auto", worked_out, False),
        ("Explicit", captured, False),
        ("Explicit", worked_out, True),
        ("Explicit", with_another_budget, False),
    ],
)
def test_a_budget_may_close_over_arrays_of_the_mesh(kind, budget_of, in_mesh):
    """They do not go through the arguments of the loss, by which it knows of the mesh."""
    logits, labels, counts = put(LOGITS, kind), put(LABELS, kind), put(COUNTS, kind, WHOLE)
    actual = thresholds_of_counts(logits, labels, counts, budget_of)
    assert_same(actual, of_counts(thresholds_of_counts))
    with jax.set_mesh(MESHES[kind]) if in_mesh else nullcontext():
        actual = jax.jit(lambda logits, counts: gradients_of_counts(logits, labels, counts, budget_of))(logits, counts)
    assert_same(actual, of_counts(gradients_of_counts))


@pytest.mark.parametrize("budget_of", [captured, worked_out])
def test_a_budget_may_close_over_arrays_of_the_mesh_outside_jit(budget_of):
    with jax.set_mesh(MESHES["Explicit"]):  # which JAX needs for any gradient outside jit
        counts = put(COUNTS, "Explicit", WHOLE)
        actual = gradients_of_counts(put(LOGITS, "Explicit"), put(LABELS, "Explicit"), counts, budget_of)
    assert_same(actual, of_counts(gradients_of_counts))


def test_a_budget_raises_its_own_errors():
    def budget(targets, weights):
        raise ValueError("no such class")

    with pytest.raises(ValueError, match="no such class"):
        softbin.loss(put(LOGITS, "Explicit"), put(LABELS, "Explicit"), budget=budget)


def diagnosis_of_shards(logits, labels, where):
    specs = {"in_specs": (SPLIT, SPLIT, WHOLE if where is None else SPLIT), "out_specs": WHOLE}
    return jax.shard_map(partial(diagnosis, axis_name="batch"), mesh=MESH, **specs)(logits, labels, where)


@pytest.mark.parametrize(
    ("function", "mask"), [(diagnosis_of_shards, "even"), (diagnosis, "uneven")], ids=["shard_map", "jit"]
)
def test_diagnosis_is_of_the_whole_batch(function, mask):
    where = WHERE[mask]
    expected = jax.jit(diagnosis)(LOGITS, LABELS, where)
    assert_same(jax.jit(function)(put(LOGITS), put(LABELS), put(where)), expected)


def test_temperature_and_parameters_get_the_gradient_of_the_whole_batch():
    def gradient(weights, temperature, inputs, labels, axis_name=None):
        def loss_fn(weights, temperature):
            return softbin.loss(inputs @ weights, labels, temperature=temperature, axis_name=axis_name)

        return jax.grad(loss_fn, argnums=(0, 1))(weights, temperature)

    arguments = (EYE, np.float32(1.2), LOGITS, LABELS)
    specs = (WHOLE, WHOLE, SPLIT, SPLIT)
    sharded = jax.shard_map(partial(gradient, axis_name="batch"), mesh=MESH, in_specs=specs, out_specs=WHOLE)
    for actual, expected in zip(jax.jit(sharded)(*arguments), jax.jit(gradient)(*arguments), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def weights_step(weights, inputs, labels, axis_name=None, microbatch_size=192):
    loss_fn = partial(softbin.loss, axis_name=axis_name)
    return large_batch.value_and_grad(lambda w, x: x @ w, loss_fn, microbatch_size)(weights, inputs, labels)


@cache
def whole_step(examples):
    logits, labels = LOGITS[:examples], LABELS[:examples]
    return jax.jit(jax.value_and_grad(lambda w: softbin.loss(logits @ w, labels)))(EYE)


def assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "microbatch_size", "how"),  # only of explicit axes it is known over how many devices examples are spread
    [
        *(("Auto", size, "jit") for size in (200, 300)),
        *(("Explicit", size, "jit") for size in (192, 200, 300, 3)),
        ("Explicit", 300, "outside jit"),
    ],
)
def test_microbatches_of_a_sharded_batch(kind, microbatch_size, how):
    """Whether or not they divide the batch, and the devices them."""
    examples = 48 if microbatch_size < DEVICES else len(LABELS)
    inputs, labels = (put(array[:examples], kind) for array in (LOGITS, LABELS))
    step = partial(weights_step, microbatch_size=microbatch_size)
    with jax.set_mesh(MESHES[kind]):  # which JAX needs for any gradient outside jit
        actual = (jax.jit(step) if how == "jit" else step)(put(EYE, kind, WHOLE), inputs, labels)
    assert_close(actual, whole_step(examples))


def test_microbatches_stay_where_they_are():
    """Where types say how the batch is sharded, no microbatch travels, and the last one neither."""
    step = partial(weights_step, microbatch_size=300)
    arguments = (
        put(EYE, "Explicit", WHOLE),
        put(LOGITS, "Explicit"),
        put(LABELS, "Explicit"),
    )
    program = jax.jit(step).lower(*arguments).compile().as_text()
    assert {kind for kind, _ in collectives(program)} == {"all-reduce"}


def test_microbatches_in_shard_map():
    local = partial(weights_step, axis_name="batch", microbatch_size=24)
    sharded = jax.shard_map(local, mesh=MESH, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=WHOLE)
    assert_close(jax.jit(sharded)(EYE, LOGITS, LABELS), whole_step(len(LABELS)))


NETWORK = {
    "hidden": np.eye(CLASSES, 8, dtype=np.float32),
    "out": np.full((8, CLASSES), 0.1, np.float32),
    "scale": np.float32(2),
}


def network(params, inputs, combine=lambda logits: logits):
    """Logits that differ from example to example, and a size of the parameters that does not."""
    logits = combine(jnp.tanh(inputs @ params["hidden"]) @ params["out"]) * params["scale"]
    return {"logits": logits, "size": jnp.full(len(inputs), params["scale"] ** 2)}


def squared_error(outputs, labels):
    target = jax.nn.one_hot(labels, CLASSES)
    return lax.pmean(jnp.mean((outputs["logits"] - target) ** 2), "batch") + jnp.mean(outputs["size"])


def in_microbatches_and_whole(params, inputs, labels, network=network):
    return (
        large_batch.value_and_grad(network, squared_error, 5)(params, inputs, labels),
        jax.value_and_grad(lambda params: squared_error(network(params, inputs), labels))(params),
    )


def over_shards(**options):
    specs = {"mesh": MESH, "in_specs": (WHOLE, SPLIT, SPLIT), "out_specs": WHOLE, **options}
    return jax.shard_map(in_microbatches_and_whole, **specs)(NETWORK, LOGITS, LABELS)


def over_shards_of_params_too():
    mesh = jax.make_mesh((DEVICES // 2, 2), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    params = {"hidden": PartitionSpec(None, "model"), "out": PartitionSpec("model"), "scale": WHOLE}
    function = partial(in_microbatches_and_whole, network=partial(network, combine=lambda z: lax.psum(z, "model")))
    specs = {"in_specs": (params, SPLIT, SPLIT), "out_specs": ((WHOLE, params), (WHOLE, params))}
    return jax.shard_map(function, mesh=mesh, **specs)(NETWORK, LOGITS, LABELS)


def over_vmap():
    split = [array.reshape(DEVICES, -1, *array.shape[1:]) for array in (LOGITS, LABELS)]
    return jax.vmap(in_microbatches_and_whole, (None, 0, 0), axis_name="batch")(NETWORK, *split)


@pytest.mark.parametrize(
    "run", [over_shards, partial(over_shards, check_vma=False), over_shards_of_params_too, over_vmap]
)
def test_microbatches_mean_what_the_whole_batch_does_wherever_the_axis_is_mapped(run):
    actual, expected = jax.jit(run)()
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_gradient_is_summed_over_devices_once_a_step():
    def step(weights, inputs, labels):
        def loss_fn(logits, labels):
            return lax.pmean(jnp.mean((logits - labels[:, None]) ** 2), "batch")

        return large_batch.value_and_grad(lambda w, x: x @ w, loss_fn, 5)(weights, inputs, labels)

    weights = np.ones((CLASSES, 40), np.float32)
    sharded = jax.shard_map(step, mesh=MESH, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=WHOLE)
    program = jax.jit(sharded).lower(weights, LOGITS, LABELS).compile().as_text()
    assert "dot(" in loops(program)
    assert collectives(loops(program)) == []
    assert sum(size for _, size in collectives(program)) == weights.size + 1  # and the value
