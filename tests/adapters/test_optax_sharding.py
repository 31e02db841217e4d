"""Trees whose leaves lie differently on a mesh, of either kind of axes, are projected and pruned as in one place."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import softbin
from softbin.adapters.leaves import pack, packed, unpack
from softbin.adapters.optax import (
    keep_params_in_hypersimplex,
    keep_top_k,
    projection_box_section,
    projection_hypersimplex,
)
from tests.test_sharding import collectives

MESHES = {
    kind.name: jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    for kind in (AxisType.Auto, AxisType.Explicit)
}
RANDOM = np.random.default_rng(0)
SPECS = {
    "embedding": PartitionSpec(("data", "model")),
    "kernel": PartitionSpec(None, "model"),
    "both": PartitionSpec("data", "model"),
    "bias": PartitionSpec(),
    "scale": PartitionSpec(),
}
SHAPES = {"embedding": (16, 3), "kernel": (5, 6), "both": (4, 2), "bias": (7,), "scale": ()}
TREE = {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
each_kind = pytest.mark.parametrize("kind", MESHES)
WEIGHTS = {name: 0.5 + leaf**2 for name, leaf in TREE.items()}


def put(tree, kind):
    return {name: jax.device_put(leaf, NamedSharding(MESHES[kind], SPECS[name])) for name, leaf in tree.items()}


def assert_same(actual, expected, kind):
    chex.assert_trees_all_close(jax.tree.map(np.asarray, actual), jax.tree.map(np.asarray, expected), atol=2e-6)
    if kind == "Explicit":
        assert {name: leaf.sharding.spec for name, leaf in actual.items()} == {
            name: PartitionSpec(*spec, *[None] * (len(SHAPES[name]) - len(spec))) for name, spec in SPECS.items()
        }


def projections(tree, weights):
    return projection_hypersimplex(tree, 20.5), projection_box_section(tree, -1.0, 1.0, weights, 2.5)


@pytest.mark.parametrize(("how", "kind"), [(lambda f: f, "Auto"), (jax.jit, "Explicit")], ids=["outside jit", "jit"])
def test_projections(how, kind):
    actual = how(projections)(put(TREE, kind), put(WEIGHTS, kind))
    for found, expected in zip(actual, projections(TREE, WEIGHTS), strict=True):
        assert_same(found, expected, kind)


@each_kind
def test_what_lies_in_one_place_is_joined_with_what_is_spread(kind):
    @jax.jit
    def run(spread, weights, one, spread_weights):
        of_one = projection_box_section(one, 0, 1.0, spread_weights, 3.0)
        return projection_box_section(spread, -1.0, 1.0, weights, 2.5), of_one

    one, weights = TREE["embedding"], WEIGHTS["embedding"]
    actual, of_one = run(put(TREE, kind), WEIGHTS, one, put(WEIGHTS, kind)["embedding"])
    assert_same(actual, projections(TREE, WEIGHTS)[1], kind)
    np.testing.assert_allclose(of_one, projection_box_section(one, 0, 1.0, weights, 3.0), atol=1e-6)


@jax.jit
def gradients(tree, k):
    def value(project, tree, k):
        return sum(jnp.sum(jnp.sin(1 + leaf)) for leaf in jax.tree.leaves(project(tree, k)))

    return [
        jax.grad(lambda tree, k, project=project: value(project, tree, k), argnums=(0, 1))(tree, k)
        for project in (projection_hypersimplex, lambda tree, k: projection_box_section(tree, -1.0, 1.0, 1.0, k))
    ]


@each_kind
def test_gradients(kind):
    for found, expected in zip(gradients(put(TREE, kind), 10.5), gradients(TREE, 10.5), strict=True):
        assert_same(found[0], expected[0], kind)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "how", "kind"),
    [
        (keep_params_in_hypersimplex(20.5), jax.jit, "Auto"),
        (keep_params_in_hypersimplex(20.5), lambda f: f, "Explicit"),
        (keep_top_k(20), lambda f: f, "Auto"),
        (keep_top_k(20), jax.jit, "Explicit"),
        (keep_top_k(softbin.budgets.fraction(0.3)), jax.jit, "Auto"),
        (keep_top_k(softbin.budgets.fraction(0.3)), lambda f: f, "Explicit"),
    ],
)
def test_transformations(optimizer, how, kind):
    gradient = jax.tree.map(lambda leaf: np.sin(3 * leaf), TREE)
    optimizer = optax.chain(optax.sgd(0.1), optimizer)

    def step(params, gradient):
        updates, state = optimizer.update(gradient, optimizer.init(params), params)
        return updates, state[-1]

    updates, state = how(step)(put(TREE, kind), put(gradient, kind))
    expected, expected_state = step(TREE, gradient)
    assert_same(updates, expected, kind)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, expected_state))


@each_kind
def test_no_leaf_is_gathered(kind):
    """Numbers alone travel, for leaves that are sharded along their first axis."""
    tree = {name: np.ones((64, 32), np.float32) for name in ("a", "b")}
    sharding = NamedSharding(MESHES[kind], PartitionSpec(("data", "model")))
    tree = {**jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), tree), "bias": np.ones(5, np.float32)}

    @jax.jit
    def run(tree):
        pruned, _ = keep_top_k(3).update(tree, keep_top_k(3).init(tree), tree)
        return projection_hypersimplex(tree, 3.0), projection_box_section(tree, 0.0, 1.0, 1.0, 3.0), pruned

    found = collectives(run.lower(tree).compile().as_text())
    assert 0 < max(size for _, size in found) <= 16


@pytest.mark.parametrize("shapes", [[(16, 3)], [(5,), (), (8, 2), (0, 4), (3, 1)], [(2, 4), (6,), (2,)]])
def test_packing_keeps_every_entry(shapes):
    leaves = [RANDOM.standard_normal(shape).astype(np.float32) for shape in shapes]
    vector = jax.jit(lambda leaves: pack(leaves, jnp.float32))(leaves)
    chex.assert_trees_all_equal(jax.jit(lambda vector: unpack(vector, leaves))(vector), leaves)
    exists = jax.jit(lambda: packed(leaves))()
    vector, entries = np.asarray(vector), np.concatenate([np.ravel(leaf) for leaf in leaves])
    assert sorted(vector if exists is None else vector[exists]) == sorted(entries)
    assert len(vector) % jax.device_count() == 0


def test_in_shard_map_every_device_chooses_among_its_own():
    values = RANDOM.standard_normal((8, 6)).astype(np.float32)

    def chosen(own, shared):
        params = {"own": own, "shared": shared}
        return keep_top_k(2).update(params, keep_top_k(2).init(params), params)[1].mask["own"]

    mesh, rows = MESHES["Auto"], PartitionSpec(("data", "model"))
    mapped = jax.shard_map(chosen, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
    np.testing.assert_array_equal(jax.jit(mapped)(values, np.zeros(3, np.float32)).sum(1), np.full(8, 2))
