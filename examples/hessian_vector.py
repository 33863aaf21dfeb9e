"""Hessian-vector products three ways: any order of forward and reverse mode goes through jconv.

    python examples/hessian_vector.py

The product of a loss's second derivatives with a direction v, never the matrix itself:

    forward over reverse    jvp of grad       ∂/∂t ∇f(w + t·v)        the usual one
    reverse over forward    grad of jvp       ∇ ⟨∇f(w), v⟩, the inner product by forward mode
    reverse over reverse    grad of grad      ∇ ⟨∇f(w), v⟩, the inner product by reverse mode

A backward pass written as `custom_vjp` knows only the last.  jconv's is bilinear primitives whose
derivatives are one another, so all three work, and every convolution in them is chosen for.  Each product is
two forwards, of w and of v, and one kernel gradient; what that gains depends on the layer, and is said below.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.comparison import compare, conditions
from jconv.testing import tolerance

SIDE, CHANNELS = 28, 64
ROUNDS = 12


def by_jconv(x, w, groups):
    """3×3, padded to the same size."""
    return jconv.conv2d(x, w, padding=1, groups=groups, layout="NHWC")


def by_lax(x, w, groups):
    """The same by JAX's own convolution."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def loss_of(conv, groups):
    """Mean of a smooth function of the output, with curvature everywhere."""
    return lambda w, x: jax.nn.softplus(conv(x, w, groups)).mean()


def forward_over_reverse(loss, w, v, x):
    """How the gradient changes along v."""
    return jax.jvp(lambda w: jax.grad(loss)(w, x), (w,), (v,))[1]


def reverse_over_forward(loss, w, v, x):
    """The gradient of the loss's slope along v."""
    return jax.grad(lambda w: jax.jvp(lambda w: loss(w, x), (w,), (v,))[1])(w)


def reverse_over_reverse(loss, w, v, x):
    """The gradient of the gradient's part along v."""
    return jax.grad(lambda w: jnp.vdot(jax.grad(loss)(w, x), v))(w)


MODES = {
    "forward over reverse": forward_over_reverse,
    "reverse over forward": reverse_over_forward,
    "reverse over reverse": reverse_over_reverse,
}


def table(groups, w, v, x):
    """All three by both, held against lax's forward over reverse."""
    ways = {
        f"{library}, {mode}": lambda *args, hvp=hvp, conv=conv: hvp(loss_of(conv, groups), *args)
        for library, conv in (("lax", by_lax), ("jconv", by_jconv))
        for mode, hvp in MODES.items()
    }
    # y from w and ẏ from v, each a sum over the taps, then one over the image for the result
    bound = 2 * tolerance("float32", w.shape[-2] * 9) + tolerance("float32", SIDE * SIDE)
    return compare(ways, w, v, x, bound=bound, rounds=ROUNDS)


def verdict(groups, comparison, w, v, x):
    """What the times say of the usual mode, and where lax is ahead what jconv ran."""
    usual = next(iter(MODES))
    gain = comparison.times.ratio(f"lax, {usual}", f"jconv, {usual}")
    if gain > 1.1:
        return f"by {usual} jconv takes 1/{gain:.1f} of lax's time"
    if gain > 1 / 1.1:
        return f"by {usual} jconv and lax take the same time, within a tenth"
    hvp = functools.partial(forward_over_reverse, loss_of(by_jconv, groups))
    steady = comparison.times.unsteady() or "The times were steady."
    return f"""by {usual} jconv takes {1 / gain:.1f} times as long as lax.  {steady}
It ran what its estimates put first; jconv.tune measures instead, and algorithm= names another:
{jconv.explain(hvp, w, v, x)}"""


def sharpest(groups, w, x):
    """The largest curvature by power iteration: v ← Hv / |Hv|, and |Hv| goes to its eigenvalue."""

    def step(v, _):
        product = forward_over_reverse(loss_of(by_jconv, groups), w, v, x)
        norm = jnp.sqrt((product**2).sum())
        return product / norm, norm

    return jax.lax.scan(step, w / jnp.sqrt((w**2).sum()), length=ROUNDS)[1]


def main():
    """A table of the dense layer, one of the depthwise; then what such products are good for."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((1, SIDE, SIDE, CHANNELS)), jnp.float32)
    print(conditions())
    for name, groups in (("dense", 1), ("depthwise", CHANNELS)):
        shape = (3, 3, CHANNELS // groups, CHANNELS)
        size = np.sqrt(np.prod(shape[:-1]))
        w, v = (jnp.asarray(rng.standard_normal(shape) / size, jnp.float32) for _ in "wv")
        print(f"\n{name}, 3×3, {CHANNELS} → {CHANNELS} channels, {SIDE}×{SIDE}: H·v")
        comparison = table(groups, w, v, x)
        print(comparison)
        print(verdict(groups, comparison, w, v, x))
    norms = np.asarray(jax.jit(sharpest, static_argnums=0)(CHANNELS, w, x))
    print(f"\nlargest curvature of the depthwise layer after {ROUNDS} products: {norms[-1]:.4g},")
    print(f"so gradient descent with a step above {2 / norms[-1]:.3g} would diverge there")
    assert np.all(np.diff(norms) >= -1e-4 * norms[-1]), "power iteration should only climb"


if __name__ == "__main__":
    main()
