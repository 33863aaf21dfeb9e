"""What padding holds: zeros, or a continuation of the image as NumPy's `pad` makes it.

Position t of the padded image, counted from the image's own start, is position i(t) of the image of h:

    replicate   i(t) = the nearest of 0 … h − 1
    circular    i(t) = t mod h
    reflect     i(t) = h − 1 − |h − 1 − (t mod 2(h − 1))|, and 0 for h = 1

at any distance, so padding may be wider than the image.  All are linear, and `folded_back` is the
transpose: what a position of the padding was given is added to the position that it shows.
"""

from collections.abc import Sequence

import jax
import jax.export
import jax.numpy as jnp

from jconv.api.options import PaddingMode
from jconv.spec import Ints
from jconv.spec.checks import Pairs

NUMPYS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(x: jax.Array, pairs: Pairs, mode: PaddingMode) -> jax.Array:
    """x (n, *spatial, c) with (lo, hi) positions of a mode, other than zeros, around its spatial axes."""
    if any(jax.export.is_symbolic_dim(size) for size in (*x.shape[1:-1], *sum(pairs, ()))):
        for axis, (lo, hi) in enumerate(pairs, 1):
            x = _looked_up(x, axis, lo, hi, mode) if (lo, hi) != (0, 0) else x
        return x
    return jnp.pad(x, ((0, 0), *pairs, (0, 0)), NUMPYS[mode])


def folded_back(x: jax.Array, spatial: Sequence[int], pairs: Pairs, mode: PaddingMode) -> jax.Array:
    """The transpose of `padded` for an image of the size `spatial`."""
    shape: Ints = (x.shape[0], *spatial, x.shape[-1])
    transpose = jax.linear_transpose(lambda x: padded(x, pairs, mode), jax.ShapeDtypeStruct(shape, x.dtype))
    (image,) = transpose(x)
    return image


def _looked_up(x: jax.Array, axis: int, lo: int, hi: int, mode: PaddingMode) -> jax.Array:
    """One axis padded by the formulas above, for a size that only a run will tell."""
    h = x.shape[axis]
    t = jnp.arange(h + lo + hi) - lo
    if mode == "replicate":
        i = jnp.clip(t, 0, h - 1)
    elif mode == "circular":
        i = t % h
    else:
        period = jax.core.max_dim(1, 2 * (h - 1))
        i = h - 1 - jnp.abs(h - 1 - t % period)
    return jnp.take(x, i, axis=axis, mode="clip")
