"""Matrix products in the operand order the platform is fast at.

XLA:CPU multiplies by rows of b as fast as by its columns, but by columns of a at half the speed.  So a is
transposed in memory first, and a barrier keeps the compiler from folding that back into the product.  A
transposed product over many rows keeps both cores busy only if it is cut into parts that run side by side,
and then nothing has to be transposed first.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jconv.algorithms import onednn_calls
from jconv.runtime import verified
from jconv.spec import ConvSpec, Ints, Role

MOST_AXES = 3  # of a product that oneDNN was verified with
MANY = 12e6  # multiply-adds from which oneDNN's product repays what starting its threads takes
LINE = 16  # words of a cache line or a vector register
NARROW = 32  # columns up to which the product itself transposes a matrix
LONG = 2048  # rows from which a product is cut into parts
PARTS = 4  # how many, at most


def product(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, m, k) times (…, k, n), accumulated as the spec says."""
    if _is_onednns(a, b, b.shape[-1], spec):
        return onednn_calls.matmul(a, b, spec.accumulator)
    return jnp.matmul(a, b, precision=spec.precision, preferred_element_type=spec.accumulator)


def _is_onednns(a: jax.Array, b: jax.Array, n: int, spec: ConvSpec) -> bool:
    """Whether oneDNN multiplies a by a b of n columns."""
    return a.dtype == b.dtype and takes(a.shape, b.shape, n, a.dtype.name, spec)


def takes(a: Ints, b: Ints, n: int, dtype: str, spec: ConvSpec) -> bool:
    """Whether oneDNN multiplies arrays of these shapes to n columns: large products.  XLA's library is half
    as fast at batched and transposed ones, and nearly as fast at plain ones.  Where one operand is a batch
    and the other a single matrix, which was verified in float32, oneDNN reads that again, and XLA would
    repeat it in memory."""
    known = all(isinstance(size, int) for size in (*a, *b))
    if not spec.onednn or not known or not len(a) == len(b) <= MOST_AXES:
        return False
    if a[:-2] != b[:-2] and dtype != "float32":
        return False
    macs = math.prod((*np.broadcast_shapes(a[:-2], b[:-2]), *a[-2:], n))
    return macs >= MANY and verified.refusal_of(dtype, spec.accumulator) is None


def transposed_product(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, k, m) transposed times (…, k, n): a is transposed in memory, or b and the result if smaller."""
    if _is_onednns(a, b, b.shape[-1], spec):
        return onednn_calls.matmul(a, b, spec.accumulator, transpose_a=True)
    *_, k, m, n = *a.shape, b.shape[-1]
    if is_long(k, m, n):
        return _by_parts(a, b, spec)
    if m <= NARROW:
        return product(jnp.swapaxes(a, -1, -2), b, spec)
    if isinstance(k, int) and k * n + m * n < k * m:
        return _swapped(product(_transposed(b), a, spec))
    return product(_transposed(a), b, spec)


def is_long(k: int, m: int, n: int) -> bool:
    """Whether a product over k rows is cut: the results of its parts are small beside its operands."""
    return isinstance(k, int) and k >= max(LONG, 4 * PARTS * max(m, n))


def by_rows(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, m, k) times (…, n, k) transposed, both read as they lie in memory."""
    if _is_onednns(a, b, b.shape[-2], spec):
        return onednn_calls.matmul(a, b, spec.accumulator, transpose_b=True)
    last, batch = a.ndim - 1, tuple(range(a.ndim - 2))
    numbers = ((last,), (last,)), (batch, batch)
    return lax.dot_general(a, b, numbers, spec.precision, preferred_element_type=spec.accumulator)


def by_columns(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, k, m) transposed times (…, k, n), both read as they lie in memory.  The narrower one comes first,
    as the other order takes up to twice as long."""
    if _is_onednns(a, b, b.shape[-1], spec):
        return onednn_calls.matmul(a, b, spec.accumulator, transpose_a=True)
    if a.shape[-1] > b.shape[-1]:
        return _swapped(by_columns(b, a, spec))
    return product(jnp.swapaxes(a, -1, -2), b, spec)


def _by_parts(a: jax.Array, b: jax.Array, spec: ConvSpec) -> jax.Array:
    """(…, k, m) transposed times (…, k, n): the sum over parts of the k rows."""
    *lead, k, _ = a.shape
    parts = next(parts for parts in range(PARTS, 0, -1) if k % parts == 0)
    a, b = (v.reshape(*lead, parts, k // parts, v.shape[-1]) for v in (a, b))
    return functools.reduce(lax.add, jnp.moveaxis(by_columns(a, b, spec), -3, 0))


def _transposed(a: jax.Array) -> jax.Array:
    """`a` transposed in memory, so that the product it goes into does not transpose it."""
    return lax.optimization_barrier(jnp.swapaxes(a, -1, -2))


def _swapped(result: jax.Array) -> jax.Array:
    """`result` transposed in memory, so that the product it comes from does not transpose it."""
    return jnp.swapaxes(lax.optimization_barrier(result), -1, -2)


# Fewest pixels for which an image is multiplied on its own: WIDE in a batch, WIDE_ALONE for a single image.
WIDE, WIDE_ALONE = 256, 128


def by_image(spec: ConvSpec, pixels: int, role: Role = "forward") -> bool:
    """Whether images of so many pixels are multiplied one by one as they lie, channels first.  The kernel has
    to be small, as it is repeated for every image and transposed for the input's gradient; the forward pass
    of a single image needs neither."""
    if not (spec.channels_first and isinstance(pixels, int)):
        return False
    alone = spec.batch == 1
    small = spec.parameters <= pixels * max(spec.c, spec.o)
    return pixels >= (WIDE_ALONE if alone else WIDE) and (small or (alone and role == "forward"))


def as_they_lie(w: jax.Array, x: jax.Array, spec: ConvSpec, role: Role = "forward") -> jax.Array:
    """w (*g, o, k) times images x (n, *g, k, p): (n, *g, o, p); for "grad_input" w (*g, k, o) transposed.

    Small images are transposed, but never the kernel, which takes many times as long.
    """
    n, *g, k, p = x.shape
    if by_image(spec, p, role):
        # The kernel is small and is repeated, since otherwise the compiler would transpose the images.
        w = w if role == "forward" else jnp.swapaxes(w, -1, -2)
        return product(jnp.broadcast_to(w, (n, *w.shape)), x, spec)
    rows = lax.optimization_barrier(jnp.moveaxis(x, (0, -1), (-3, -2)).reshape(*g, n * p, k))
    y = by_rows(rows, w, spec) if role == "forward" else product(rows, w, spec)
    return jnp.moveaxis(y.reshape(*g, n, p, -1), (-3, -2), (0, -1))
