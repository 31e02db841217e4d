"""Every public function in every way in which JAX is used: one program of all of them for each way."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export, lax
from jax.experimental import checkify
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import budgets, large_batch
from softbin.adapters import flax_linen, flax_nnx, gbdt
from softbin.adapters.optax import keep_params_in_hypersimplex, projection_box_section, projection_hypersimplex
from tests.test_sharding import collectives

N, CLASSES = 32, 16  # more than the groups that are short: those are gathered
RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((N, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N, np.uint8)
WHERE = np.arange(N) % 5 > 0
WEIGHTS = np.linspace(0.5, 2, N, dtype=np.float32)
BATCH = (LOGITS, LABELS, WHERE, WEIGHTS)
WHOLE, BY_EXAMPLE = PartitionSpec(), PartitionSpec("a")
DEVICE_MESH = ((4, 2), ("a", "b"))
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
LAYOUTS = [PartitionSpec("a", "b"), PartitionSpec(None, "b"), PartitionSpec(("a", "b"))]


def of_batches(logits, labels, where, weights, axis_name=None):
    """What every shard has alike."""
    batch = {"where": where, "weights": weights, "axis_name": axis_name}
    along = {"axis": 0, "where": where[:, None], "axis_name": axis_name}
    return {
        "loss": softbin.loss(logits, labels, axis_name=axis_name),
        "loss, prior": softbin.loss(logits, labels, budget=budgets.prior([1 / CLASSES] * CLASSES), **batch),
        "fenchel_young_loss": softbin.fenchel_young_loss(logits, labels, **batch),
        "decision_thresholds": softbin.decision_thresholds(logits, temperature=1.5, **batch),
        "diagnose": softbin.diagnose(logits, labels, **batch)._replace(rounds=jnp.int32(0))._asdict(),
        "threshold": softbin.threshold(logits, 5.5, **along),
        "kth_largest": softbin.kth_largest(logits, 5, **along),
        "cutoff": softbin.cutoff(logits, 5, **along),
        "top_k_mean": softbin.top_k_mean(logits, budgets.fraction(0.3), weights=weights[:, None], **along),
    }


def of_entries(logits, labels, where, weights, axis_name=None):
    """What has an entry for every example."""
    along = {"axis": 0, "where": where[:, None], "axis_name": axis_name}
    return {
        "soft_binary_argmax": softbin.soft_binary_argmax(logits, 5, 0.5, weights=weights[:, None], **along),
        "binary_argmax": softbin.binary_argmax(logits, 5, **along),
        "rows": softbin.soft_binary_argmax(logits, 2, regularizer=softbin.binary_entropy),
        "hard rows": softbin.binary_argmax(logits, 2),
        "project_hypersimplex": softbin.project_hypersimplex(logits, 1.5),
        "predict": softbin.predict(logits, jnp.zeros(CLASSES), 1.5),
    }


def without_axis_name(logits, labels, where, weights):
    """What is for a batch in one piece."""
    del weights
    lam = jnp.zeros(CLASSES)
    return {
        "zero_one_loss": softbin.zero_one_loss(logits, labels, where=where),
        "with thresholds": softbin.zero_one_loss(logits, labels, thresholds=lam, temperature=1.5),
        "all axes": softbin.soft_binary_argmax(logits, 20.5, axis=None),
        "hard, all axes": softbin.binary_argmax(logits, 20, axis=(0, 1)),
    }


def in_one_place(logits, labels, where, weights):
    """What puts all entries into a row, or loops over examples."""
    del where, weights
    step = large_batch.value_and_grad(lambda scale, x: scale[None] * x, softbin.loss, microbatch_size=12)
    return {
        "large_batch": step(jnp.ones(CLASSES, logits.dtype), logits, labels),
        "projection_hypersimplex": projection_hypersimplex({"p": logits}, 20),
        "projection_box_section": projection_box_section({"p": logits}, 0.0, 1.0, 1.0, 20.0),
    }


def everything(logits, labels, where, weights, functions=(of_batches, of_entries, without_axis_name, in_one_place)):
    """The results of all functions, and the gradient by the logits of what can have one."""

    def total(logits):
        results = {}
        for function in functions:
            results |= function(logits, labels, where, weights)
        floats = [x for x in jax.tree.leaves(results) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((jnp.sum(jnp.sin(x)).astype(logits.dtype) for x in floats), jnp.zeros((), logits.dtype)), results

    gradient, results = jax.grad(total, has_aux=True)(logits)
    return results | {"gradient": gradient}


sharded = (of_batches, of_entries, without_axis_name)  # a tree in one row is gathered, as by Optax
compiled = jax.jit(everything, static_argnames="functions")


@cache
def program():
    """Of everything, which `jax.clear_caches` leaves."""
    return compiled.lower(*BATCH).compile()


@cache
def expected(functions=None):
    return program()(*BATCH) if functions is None else compiled(*BATCH, functions=functions)


def assert_same(actual, wanted=None):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected() if wanted is None else wanted),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path))
        if jnp.issubdtype(b.dtype, jnp.floating):
            assert a.dtype == b.dtype, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("setting", "functions"),
    [
        (lambda: jax.numpy_dtype_promotion("strict"), None),
        (lambda: jax.numpy_rank_promotion("raise"), None),
        (jax.checking_leaks, (of_entries,)),  # nothing is cached meanwhile, which makes tracing slow
    ],
    ids=["promotion of types", "promotion of ranks", "leaks"],
)
def test_settings_that_forbid_what_is_traced(setting, functions):
    jax.clear_caches()
    chosen = {} if functions is None else {"functions": functions}
    with setting():
        shapes = jax.eval_shape(lambda *batch: everything(*batch, **chosen), *BATCH)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, expected(**chosen))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64])
def test_other_precisions_under_strict_promotion(dtype, x64):
    with jax.numpy_dtype_promotion("strict"):
        results = jax.eval_shape(everything, jnp.asarray(LOGITS, dtype), *BATCH[1:])
    assert results["gradient"].dtype == results["soft_binary_argmax"].dtype == dtype


@pytest.fixture
def expected_in_single_precision():
    expected()


def test_single_precision_beside_double(expected_in_single_precision, x64):
    assert_same(jax.jit(everything)(LOGITS, LABELS.astype(np.int64), *BATCH[2:]))


def test_donated_logits_without_transfers_where_nans_are_errors():
    batch = jax.device_put(BATCH)
    program = jax.jit(everything, donate_argnums=0).lower(*batch).compile()
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        results = jax.block_until_ready(program(*batch))
    assert_same(results)
    assert batch[0].is_deleted()


def test_checks_of_floats_give_no_false_alarm():
    logits = LOGITS.copy()
    logits[::3, 1] = -np.inf

    @jax.jit
    @partial(checkify.checkify, errors=checkify.float_checks)
    def checked(logits):
        def loss(logits):
            return softbin.loss(logits, jnp.zeros(N, jnp.int32), budget=budgets.label_count)  # others are absent

        return (
            jax.value_and_grad(loss)(logits),
            softbin.fenchel_young_loss(LOGITS, jnp.zeros(N, jnp.int32), regularizer=softbin.binary_entropy),
            jax.grad(lambda x: softbin.soft_binary_argmax(x, 2)[0, 0])(logits),
            softbin.cutoff(logits, 2, where=jnp.arange(N)[:, None] > 0),
            softbin.binary_argmax(logits, 5),
            softbin.kth_largest(logits, 0.5, weights=jnp.full((N, CLASSES), 0.25)),
            softbin.top_k_mean(logits, 3, 0.5),
        )

    error, results = checked(logits)
    error.throw()
    assert not any(np.isnan(result).any() for result in jax.tree.leaves(results))


def test_a_program_for_any_number_of_examples():
    functions = (of_batches, of_entries)
    (n,) = export.symbolic_shape("n", constraints=["n >= 20"])
    shapes = [jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype) for x in BATCH]
    exported = export.export(jax.jit(lambda *batch: everything(*batch, functions=functions)))(*shapes)
    part = [x[:23] for x in BATCH]
    assert_same(export.deserialize(exported.serialize()).call(*part), compiled(*part, functions=functions))


def test_vmap_scan_and_remat():
    batches = [np.stack([x, x[::-1]]) for x in BATCH]

    @jax.jit
    def both(*batches):
        scanned = lax.scan(lambda _, batch: (None, jax.checkpoint(everything)(*batch)), None, batches)[1]
        return jax.vmap(everything)(*batches), scanned

    mapped, scanned = both(*batches)
    wanted = jax.tree.map(lambda *x: jnp.stack(x), expected(), program()(*(x[::-1] for x in BATCH)))
    assert_same(mapped, wanted)
    assert_same(scanned, wanted)


def test_threads_that_trace_at_once():
    functions = (of_entries,)
    wanted = compiled(*BATCH, functions=functions)
    jax.clear_caches()
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: compiled(*BATCH, functions=functions), range(4)):
            assert_same(results, wanted)


@pytest.mark.parametrize(
    ("kind", "layout"), [("auto", LAYOUTS[0]), *(("explicit", layout) for layout in LAYOUTS)], ids=str
)
def test_meshes(kind, layout):
    mesh = jax.make_mesh(*DEVICE_MESH, axis_types=(KINDS[kind],) * 2)
    by_example = PartitionSpec(*layout[:1])
    batch = [jax.device_put(x, NamedSharding(mesh, layout if x is LOGITS else by_example)) for x in BATCH]
    program = jax.jit(lambda *batch: everything(*batch, functions=sharded)).lower(*batch).compile()
    results = program(*batch)
    assert_same(results, expected(sharded))
    assert results["gradient"].sharding.is_equivalent_to(batch[0].sharding, 2)
    gathered = [size for kind, size in collectives(program.as_text()) if kind != "all-reduce"]
    assert max(gathered, default=0) <= 2 * N  # by an argmax: the best of every shard, and where it is


@pytest.mark.parametrize(("kind", "check_vma"), [("auto", False), ("explicit", True)])
def test_shard_map_over_one_of_two_axes(kind, check_vma):
    mesh = jax.make_mesh(*DEVICE_MESH, axis_types=(KINDS[kind],) * 2)

    def results(*batch):
        return of_batches(*batch, axis_name="a"), of_entries(*batch, axis_name="a")

    over_a = jax.shard_map(
        results, mesh=mesh, axis_names={"a"}, in_specs=BY_EXAMPLE, out_specs=(WHOLE, BY_EXAMPLE), check_vma=check_vma
    )
    with jax.set_mesh(mesh):
        batch = [jax.device_put(x, NamedSharding(mesh, BY_EXAMPLE)) for x in BATCH]
        whole, entries = jax.jit(over_a)(*batch)
    wanted = expected()
    assert_same((whole, entries), tuple({name: wanted[name] for name in part} for part in (whole, entries)))


# Objects that hold a regularizer, and transforms of libraries


@pytest.mark.parametrize(
    "made",
    [
        softbin.euclidean,
        softbin.binary_entropy,
        softbin.normal,
        softbin.tsallis(1.5),
        budgets.fraction(0.5),
        budgets.prior([0.25, 0.75]),
        gbdt.lightgbm_objective(regularizer=softbin.binary_entropy),
        gbdt.xgboost_objective(budget=budgets.fraction(0.3)),
        flax_linen.SoftBinaryArgmax(k=2, axis=(0, 1)),
        flax_linen.DecisionThresholds(10, temperature=1.5),
    ],
    ids=lambda made: type(made).__name__,
)
def test_pickled_objects_are_equal(made):
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert hash(again) == hash(made)


def test_regularizers_show_their_names():
    assert repr(softbin.euclidean) == "softbin.euclidean"
    assert repr(softbin.binary_entropy) == "softbin.binary_entropy"


def test_nnx_transforms_and_pickling_of_a_layer():
    layer = flax_nnx.SoftBinaryArgmax(k=2, temperature=0.5, learn_temperature=True)
    graph, state = nnx.split(pickle.loads(pickle.dumps(layer)))
    assert graph == nnx.graphdef(layer)
    wanted = softbin.soft_binary_argmax(LOGITS, 2, 0.5)
    results = {
        "jit": nnx.jit(lambda layer, x: layer(x))(layer, LOGITS),
        "vmap": nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(layer, LOGITS),
        "scan": nnx.scan(lambda layer, x: (layer, layer(x)), in_axes=(nnx.Carry, 0))(layer, LOGITS)[1],
        "merged": nnx.merge(graph, state)(LOGITS),
    }
    for name, actual in results.items():
        np.testing.assert_allclose(actual, wanted, atol=1e-6, err_msg=name)


def test_linen_vmap_of_a_layer():
    axes = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
    layer = nn.vmap(flax_linen.SoftBinaryArgmax, **axes)(k=2, temperature=0.5, learn_temperature=True)
    y, _ = layer.init_with_output(jax.random.key(0), LOGITS)
    np.testing.assert_allclose(y, softbin.soft_binary_argmax(LOGITS, 2, 0.5), atol=1e-6)


def test_optax_wrappers_of_a_projection():
    params = {"chosen": jnp.full(4, 0.5), "free": jnp.zeros(2)}
    gradient = {"chosen": jnp.array([1.0, -1.0, 0.2, 0.0]), "free": jnp.ones(2)}
    projected = optax.masked(keep_params_in_hypersimplex(2), {"chosen": True, "free": False})
    optimizer = optax.MultiSteps(optax.chain(optax.sgd(0.1), projected), every_k_schedule=2)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(2):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    wanted = softbin.project_hypersimplex(0.5 - 0.1 * gradient["chosen"], 2)
    chex.assert_trees_all_close(params, {"chosen": wanted, "free": jnp.full(2, -0.1)}, atol=1e-6)
