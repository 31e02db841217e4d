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
each_way = pytest.mark.parametrize("how", [lambda f: f, jax.jit], ids=["outside jit", "jit"])


def put(tree, kind):
    return {name: jax.device_put(leaf, NamedSharding(MESHES[kind], SPECS[name])) for name, leaf in tree.items()}


def assert_same(actual, expected, kind):
    chex.assert_trees_all_close(jax.tree.map(np.asarray, actual), jax.tree.map(np.asarray, expected), atol=2e-6)
    if kind == "Explicit":
        assert {name: leaf.sharding.spec for name, leaf in actual.items()} == {
            name: PartitionSpec(*spec, *[None] * (len(SHAPES[name]) - len(spec))) for name, spec in SPECS.items()
        }


@each_kind
@each_way
def test_projections(how, kind):
    tree = put(TREE, kind)
    expected = projection_hypersimplex(TREE, 20.5)
    assert_same(how(projection_hypersimplex)(tree, 20.5), expected, kind)
    weights = jax.tree.map(lambda leaf: 0.5 + leaf**2, TREE)
    section = how(lambda tree, weights: projection_box_section(tree, -1.0, 1.0, weights, 2.5))
    expected = projection_box_section(TREE, -1.0, 1.0, weights, 2.5)
    assert_same(section(tree, put(weights, kind)), expected, kind)
    assert_same(section(tree, weights), expected, kind)
    actual = how(lambda x, w: projection_box_section(x, 0, 1.0, w, 3.0))(
        TREE["embedding"], put(weights, kind)["embedding"]
    )
    expected = projection_box_section(TREE["embedding"], 0, 1.0, weights["embedding"], 3.0)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@each_kind
def test_gradients(kind):
    def value(project, tree, k):
        return sum(jnp.sum(jnp.sin(1 + leaf)) for leaf in jax.tree.leaves(project(tree, k)))

    for project in (projection_hypersimplex, lambda tree, k: projection_box_section(tree, -1.0, 1.0, 1.0, k)):
        gradient = jax.jit(jax.grad(lambda tree, k, project=project: value(project, tree, k), argnums=(0, 1)))
        by_tree, by_k = gradient(put(TREE, kind), 10.5)
        expected, expected_by_k = gradient(TREE, 10.5)
        assert_same(by_tree, expected, kind)
        np.testing.assert_allclose(by_k, expected_by_k, atol=1e-6)


@each_kind
@each_way
@pytest.mark.parametrize(
    "optimizer",
    [keep_params_in_hypersimplex(20.5), keep_top_k(20), keep_top_k(softbin.budgets.fraction(0.3))],
    ids=["hypersimplex", "count", "share"],
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
    tree = {**jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), tree), "bias": jnp.ones(5)}
    for function in (
        lambda tree: projection_hypersimplex(tree, 3.0),
        lambda tree: projection_box_section(tree, 0.0, 1.0, 1.0, 3.0),
        lambda tree: keep_top_k(3).update(tree, keep_top_k(3).init(tree), tree)[0],
    ):
        found = collectives(jax.jit(function).lower(tree).compile().as_text())
        assert max(size for _, size in found) <= 16


@pytest.mark.parametrize("shapes", [[(16, 3)], [(5,), (), (8, 2), (0, 4), (3, 1)], [(2, 4), (6,), (2,)]])
def test_packing_keeps_every_entry(shapes):
    leaves = [jnp.asarray(RANDOM.standard_normal(shape), jnp.float32) for shape in shapes]
    vector = pack(leaves, jnp.float32)
    chex.assert_trees_all_equal(unpack(vector, leaves), leaves)
    exists = packed(leaves)
    entries = np.concatenate([np.ravel(leaf) for leaf in leaves])
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
