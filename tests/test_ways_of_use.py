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
from jax.extend.core import Literal
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin import budgets, large_batch
from softbin._engine import meshes
from softbin.adapters import flax_linen, flax_nnx, gbdt
from softbin.adapters.optax import keep_params_in_hypersimplex, projection_box_section, projection_hypersimplex
from tests.test_sharding import collectives

N, CLASSES = 40, 16  # more than the groups that are short: those are gathered
RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((N, CLASSES)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, N, np.uint8)
WHERE = np.arange(N) % 5 > 0
WEIGHTS = np.linspace(0.5, 2, N, dtype=np.float32)
BATCH = (LOGITS, LABELS, WHERE, WEIGHTS)
WHOLE, BY_EXAMPLE = PartitionSpec(), PartitionSpec("a")
DEVICE_MESH = ((4, 2), ("a", "b"))
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
BOTH_AXES, BY_CLASS, BOTH_BY_EXAMPLE = PartitionSpec("a", "b"), PartitionSpec(None, "b"), PartitionSpec(("a", "b"))


def of_batches(logits, labels, where, weights, axis_name=None):
    """What knows of labels, or of thresholds for all classes: every shard has it alike."""
    batch = {"where": where, "weights": weights, "axis_name": axis_name}
    return {
        "loss": softbin.loss(logits, labels, budget=budgets.prior([1 / CLASSES] * CLASSES), **batch),
        "fenchel_young_loss": softbin.fenchel_young_loss(logits, labels, axis_name=axis_name),
        "decision_thresholds": softbin.decision_thresholds(logits, temperature=1.5, **batch),
        "diagnose": softbin.diagnose(logits, labels, **batch)._replace(rounds=jnp.int32(0))._asdict(),
    }


def of_groups(logits, labels, where, weights, axis_name=None):
    """What has a value for each group of entries: every shard has it alike."""
    del labels
    along = {"axis": 0, "where": where[:, None], "axis_name": axis_name}
    return {
        "threshold": softbin.threshold(logits, 5.5, **along),
        "kth_largest": softbin.kth_largest(logits, 5, **along),
        "cutoff": softbin.cutoff(logits, 5, **along),
        "top_k_mean": softbin.top_k_mean(logits, budgets.fraction(0.3), weights=weights[:, None], **along),
    }


def of_entries(logits, labels, where, weights, axis_name=None):
    """What has an entry for every example."""
    del labels
    along = {"axis": 0, "where": where[:, None], "axis_name": axis_name}
    soft = {"weights": weights[:, None], "regularizer": softbin.binary_entropy, **along}
    return {
        "soft_binary_argmax": softbin.soft_binary_argmax(logits, 5, 0.5, **soft),
        "binary_argmax": softbin.binary_argmax(logits, 5, **along),
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


WITH_AXIS_NAME = (of_batches, of_groups, of_entries)
SHARDED = (*WITH_AXIS_NAME, without_axis_name)  # a tree in one row is gathered, as by Optax
ALL = (*SHARDED, in_one_place)


def everything(logits, *others, functions=ALL):
    """The results of functions, and the gradients by the logits of what can have one."""

    def total(logits, function):
        results = function(logits, *others)
        floats = [x for x in jax.tree.leaves(results) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum((jnp.sum(jnp.sin(x)).astype(logits.dtype) for x in floats), jnp.zeros((), logits.dtype)), results

    found = {}
    for function in functions:
        gradient, results = jax.grad(partial(total, function=function), has_aux=True)(logits)
        found[function.__name__] = results | {"gradient": gradient}
    return found


@cache
def program():
    """Of everything, with which all ways are compared: `jax.clear_caches` leaves it."""
    return jax.jit(everything, donate_argnums=0).lower(*BATCH).compile()


@cache
def expected(functions=ALL):
    results = jax.tree.map(np.asarray, program()(*jax.device_put(BATCH))) if functions == ALL else expected()
    return {function.__name__: results[function.__name__] for function in functions}


def assert_same(actual, wanted):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path))
        if jnp.issubdtype(b.dtype, jnp.floating):
            assert a.dtype == b.dtype, jax.tree_util.keystr(path)


def assert_traced(functions):
    shapes = jax.eval_shape(lambda *batch: everything(*batch, functions=functions), *BATCH)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, expected(functions))


def test_no_promotion_of_types_or_ranks():
    jax.clear_caches()
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert_traced(ALL)


def test_no_leaks():
    jax.clear_caches()
    with jax.checking_leaks():
        assert_traced((of_entries,))  # nothing is cached meanwhile, which makes tracing slow


@pytest.mark.parametrize(
    ("dtype", "functions"),
    [(jnp.bfloat16, ALL), (jnp.float64, ALL), (jnp.float16, (of_groups, of_entries))],  # which is rounded otherwise
    ids=["bfloat16", "float64", "float16"],
)
def test_other_precisions_under_strict_promotion(dtype, functions, x64):
    with jax.numpy_dtype_promotion("strict"):
        results = jax.eval_shape(partial(everything, functions=functions), jnp.asarray(LOGITS, dtype), *BATCH[1:])
    assert {part["gradient"].dtype for part in results.values()} == {jnp.dtype(dtype)}
    assert results["of_entries"]["soft_binary_argmax"].dtype == dtype


def slow_work_on_constants(jaxpr, known):
    """What XLA would add up, fill up or sort while it compiles, slowly, and which results are known then."""
    is_known, found = dict(zip(jaxpr.invars, known, strict=True)) | dict.fromkeys(jaxpr.constvars, True), []
    for equation in jaxpr.eqns:
        inputs = [isinstance(x, Literal) or is_known[x] for x in equation.invars]
        results = [all(inputs) and equation.primitive.name != "optimization_barrier"] * len(equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and len(inner.invars) == len(inputs):  # a loop's state is not
                more, results = slow_work_on_constants(inner, inputs)
                found += more
        name, operands = equation.primitive.name, [x.aval for x in equation.invars]
        is_slow = name in ("pad", "sort", "top_k") or (name == "reduce" and len(inputs) > 2)
        is_slow |= name == "reduce_sum" and operands[0].dtype == jnp.int32
        if is_slow and all(inputs) and operands[0].size > CLASSES:
            found.append((name, operands[0].shape))
        is_known |= dict(zip(equation.outvars, results, strict=True))
    return found, [isinstance(x, Literal) or is_known[x] for x in jaxpr.outvars]


def test_constants_are_not_added_up_while_compiling():
    """XLA did so with labels, masks, weights and defaults: of 2^24 examples for two minutes (jaxlib 0.10.2).

    It sorted 2^20 constant scores for six minutes, and filled up 2^24 + 1 places for eight seconds.
    """
    logits, labels, where, weights = (np.concatenate([x] * 5) for x in BATCH)  # so long that it is added up by blocks

    def all_of_constants(logits):
        each, share = logits[:, 0], budgets.fraction(0.3)
        return everything(logits, labels, where, weights), [
            softbin.loss(logits, labels),
            softbin.loss(logits, labels, budget=lambda targets, weights: budgets.fraction(0.5)(targets, weights)),
            softbin.loss(each, where, budget=budgets.label_count, weights=weights),
            softbin.fenchel_young_loss(each, where, where=labels > 0),
            softbin.diagnose(logits, labels),
            softbin.top_k_mean(each, share, weights=weights),
            softbin.kth_largest(each, share, where=where, weights=weights),
            softbin.binary_argmax(each, share, where=where),
            softbin.top_k(weights, 3),
            softbin.top_k(each, 3, where=where),
            softbin.precision_at_k(each, where, share, where=labels > 0),
            softbin.quantile(each, 0.3, where=where),
            softbin.routing.quantile_bias(logits, jnp.zeros(CLASSES), 2, where=where),
            softbin.sampling.truncate(logits, top_k=3, top_p=0.5, where=where[:, None], axis=0),
        ]

    program = jax.make_jaxpr(all_of_constants)(logits).jaxpr
    assert not slow_work_on_constants(program, [False])[0]


def test_large_constants_are_hidden_from_the_compiler(monkeypatch):
    mesh = jax.make_mesh(*DEVICE_MESH, axis_types=(AxisType.Explicit,) * 2)
    spread = jax.device_put(LOGITS, NamedSharding(mesh, BOTH_AXES))
    keys, shares = jax.random.split(jax.random.key(0), N), budgets.prior(np.full(CLASSES, 1 / CLASSES))

    def of_constants():
        return (
            softbin.sampling.sample(keys, LOGITS, top_p=WHERE / 2 + 0.25),
            softbin.loss(LOGITS, LABELS, budget=shares, where=WHERE, weights=WEIGHTS.astype(np.float64)),
            softbin.binary_argmax(spread, 2),
        )

    wanted = of_constants()
    monkeypatch.setattr(meshes, "_LARGE", 1)
    with jax.set_mesh(mesh):
        program = jax.jit(of_constants).lower()
        assert program.as_text().count("optimization_barrier") > 4
        assert_same(program.compile()(), wanted)


def test_donated_logits_without_transfers_where_nans_are_errors():
    batch = jax.device_put(BATCH)
    with jax.transfer_guard("disallow"), jax.debug_nans(True):
        jax.block_until_ready(program()(*batch))
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
    (n,) = export.symbolic_shape("n", constraints=["n >= 20"])
    shapes = [jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype) for x in BATCH]
    exported = export.export(jax.jit(partial(everything, functions=WITH_AXIS_NAME)))(*shapes)
    assert_same(export.deserialize(exported.serialize()).call(*BATCH), expected(WITH_AXIS_NAME))


@pytest.fixture
def wanted_of_two():
    """The results of the batch and of its reverse, in single precision."""
    return expected(), program()(*jax.device_put([x[::-1] for x in BATCH]))


def test_vmap_scan_and_remat_in_single_precision_beside_double(wanted_of_two, x64):
    there_and_back = [[0, 1], [1, 0]]
    both = [np.stack([x, x[::-1]])[there_and_back] for x in (LOGITS, LABELS.astype(np.int64), WHERE, WEIGHTS)]

    @jax.jit
    def mapped_in_a_loop(*batches):
        return lax.scan(lambda _, batch: (None, jax.checkpoint(jax.vmap(everything))(*batch)), None, batches)[1]

    assert_same(mapped_in_a_loop(*both), jax.tree.map(lambda *x: np.stack(x)[there_and_back], *wanted_of_two))


def test_threads_that_trace_at_once():
    functions = (of_entries,)
    wanted = expected(functions)
    jax.clear_caches()
    compiled = jax.jit(partial(everything, functions=functions))
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: compiled(*BATCH), range(4)):
            assert_same(results, wanted)


@pytest.mark.parametrize(
    ("kind", "layout", "functions"),
    [
        ("auto", BOTH_AXES, SHARDED),
        ("explicit", BOTH_AXES, SHARDED),
        ("explicit", BY_CLASS, (of_entries, without_axis_name)),  # rows, and all axes
        ("explicit", BOTH_BY_EXAMPLE, (of_batches, of_groups)),  # columns, of which losses treat whole rows otherwise
    ],
    ids=["auto", "explicit", "by class", "by example"],
)
def test_meshes(kind, layout, functions):
    mesh = jax.make_mesh(*DEVICE_MESH, axis_types=(KINDS[kind],) * 2)
    by_example = PartitionSpec(*layout[:1])
    batch = [jax.device_put(x, NamedSharding(mesh, layout if x is LOGITS else by_example)) for x in BATCH]
    program = jax.jit(partial(everything, functions=functions)).lower(*batch).compile()
    results = program(*batch)
    assert_same(results, expected(functions))
    for part in results.values():
        assert part["gradient"].sharding.is_equivalent_to(batch[0].sharding, 2)
    gathered = [size for kind, size in collectives(program.as_text()) if kind != "all-reduce"]
    assert max(gathered, default=0) <= 2 * N  # by an argmax: the best of every shard, and where it is


@pytest.mark.parametrize(
    ("kind", "check_vma", "entries"), [("auto", False, ()), ("explicit", True, (of_entries,))], ids=["auto", "explicit"]
)
def test_shard_map_over_one_of_two_axes(kind, check_vma, entries):
    mesh = jax.make_mesh(*DEVICE_MESH, axis_types=(KINDS[kind],) * 2)

    def results(*batch):
        parts = ((of_batches, of_groups), entries)
        return [{function.__name__: function(*batch, axis_name="a") for function in part} for part in parts]

    over_a = jax.shard_map(
        results, mesh=mesh, axis_names={"a"}, in_specs=BY_EXAMPLE, out_specs=[WHOLE, BY_EXAMPLE], check_vma=check_vma
    )
    with jax.set_mesh(mesh):
        batch = [jax.device_put(x, NamedSharding(mesh, BY_EXAMPLE)) for x in BATCH]
        whole, by_example = jax.jit(over_a)(*batch)
    wanted = expected((of_batches, of_groups, *entries))
    for name, part in (whole | by_example).items():
        assert_same(part, {key: wanted[name][key] for key in part})


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
    params = {"chosen": np.full(4, 0.5, np.float32), "free": np.zeros(2, np.float32)}
    gradient = {"chosen": np.float32([1.0, -1.0, 0.2, 0.0]), "free": np.ones(2, np.float32)}
    projected = optax.masked(keep_params_in_hypersimplex(2), {"chosen": True, "free": False})
    optimizer = optax.MultiSteps(optax.chain(optax.sgd(0.1), projected), every_k_schedule=2)

    @jax.jit
    def two_steps(params):
        def step(_, carry):
            updates, state = optimizer.update(gradient, carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return lax.fori_loop(0, 2, step, (params, optimizer.init(params)))[0]

    wanted = softbin.project_hypersimplex(0.5 - 0.1 * gradient["chosen"], 2)
    chex.assert_trees_all_close(two_steps(params), {"chosen": wanted, "free": np.full(2, -0.1)}, atol=1e-6)
