"""Matrix products in the operand order the platform is fast at.

XLA:CPU multiplies row-major operands about twice as fast as it multiplies a transposed one: 64×3136
by 3136×64 took 0.20 ms with an explicit transpose first, 0.51 ms without (2026-11, jax 0.10, AMD
EPYC, 2 cores).  The barrier keeps the compiler from folding the transpose back into the product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jconv.spec import ConvSpec

NARROW = 32  # columns up to which a matrix is read transposed, not turned


def product(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, m, k) times (…, k, n), accumulated as the spec says."""
    return jnp.matmul(a, b, precision=spec.precision, preferred_element_type=spec.accumulator)


def transposed_product(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, k, m) transposed times (…, k, n): a is turned, or b and the result where they are smaller."""
    *_, k, m, n = *a.shape, b.shape[-1]
    if m <= NARROW:
        return product(jnp.swapaxes(a, -1, -2), b, spec)
    if isinstance(k, int) and k * n + m * n < k * m:
        return jnp.swapaxes(lax.optimization_barrier(product(_turned(b), a, spec)), -1, -2)
    return product(_turned(a), b, spec)


def _turned(a: jax.Array) -> jax.Array:
    return lax.optimization_barrier(jnp.swapaxes(a, -1, -2))
