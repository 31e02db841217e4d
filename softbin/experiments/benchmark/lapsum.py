"""LapSum's soft choice of k of n (arXiv:2503.06242) in JAX: a sort, decaying sums and a quadratic equation."""

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def lapsum(point, k):
    """`y = ψ(point - λ)` along the last axis, with the sum `k`, where `ψ` is Laplace's distribution function.

    With `t` the point in decreasing order, of which `m` entries are above `λ`, the sum is

        m + exp(-λ) A / 2 - exp(λ) B / 2,    A = Σ_{i > m} exp(t_i),    B = Σ_{i <= m} exp(-t_i).

    It increases as `λ` passes through `t_1, t_2, ...`, which gives `m`; then a quadratic equation gives `exp(λ)`. Sums
    are relative to their largest term. For `0 < k < n`.
    """
    return _forward(point, k)[0]


def _forward(point, k):
    ends = [(0, 0)] * (point.ndim - 1) + [(1, 1)]
    t = jnp.pad(jnp.sort(point, descending=True), ends, constant_values=((jnp.inf, -jnp.inf),))
    decay = jnp.exp(jnp.diff(t))
    above = _decaying_sums(decay)[..., :-1]  # Σ exp(t_i - t_j) over j <= i
    below = _decaying_sums(decay, reverse=True)[..., 1:]  # Σ exp(t_j - t_i) over j >= i
    m = jnp.sum(jnp.arange(point.shape[-1]) + (1 + below - above) / 2 <= k, -1, keepdims=True)

    take = partial(jnp.take_along_axis, indices=m, axis=-1, mode="clip")
    rest, upper, lower = k - m, take(t), take(t[..., 1:])
    a, b = take(below), jnp.take_along_axis(above, m - 1, -1, mode="clip")
    root = jnp.abs(rest) + jnp.hypot(rest, jnp.sqrt(a * b) * jnp.exp((lower - upper) / 2))
    root = jnp.maximum(root, _tiny(point))  # it underflows in a wide gap, where any threshold will do
    u = point - jnp.where(rest > 0, lower + jnp.log(a / root), upper + jnp.log(root / b))
    tail = jnp.exp(-jnp.abs(u)) / 2
    return jnp.where(u > 0, 1 - tail, tail), tail


def _decaying_sums(decay, reverse: bool = False):
    """`s_i = 1 + decay_i s_{i-1}`."""

    def join(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    return jax.lax.associative_scan(join, (decay, jnp.ones_like(decay)), reverse=reverse, axis=decay.ndim - 1)[1]


def _backward(k, slope, cotangent):
    total = jnp.maximum(jnp.sum(slope, -1, keepdims=True), _tiny(slope))
    return (slope * (cotangent - jnp.sum(slope * cotangent, -1, keepdims=True) / total),)


def _tiny(array):
    return jnp.finfo(array.dtype).tiny


lapsum.defvjp(_forward, _backward)
