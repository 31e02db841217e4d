import jax.numpy as jnp
import numpy as np
import pytest

from softbin.experiments.benchmark import peers
from softbin.experiments.benchmark.numpy_projections import exact_projection


def test_missing_packages_are_told():
    assert peers.missing(["numpy", "absent_library"]) == ["absent_library"]
    assert peers.load("absent_library") is None
    assert peers.load("numpy") is np


@pytest.mark.parametrize("rows", [1, 3])
def test_jaxopt_projects_rows(rows):
    pytest.importorskip("jaxopt")
    points = np.random.default_rng(0).standard_normal((rows, 8), np.float32)
    expected = [exact_projection(point, 3.0) for point in points]
    np.testing.assert_allclose(peers.box_section(jnp.asarray(points), 3), expected, atol=1e-5)
