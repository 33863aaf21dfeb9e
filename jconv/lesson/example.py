"""The numbers the page starts from, all computed by jconv: outputs, columns, gradients."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.algorithms.windows import patches
from jconv.lesson.kernels import MEANING, NAMED
from jconv.problem import hashable, understand
from jconv.textbook.example import INPUT

EXAMPLE = INPUT.tolist()
Knobs = dict[str, Any]  # int each; to mypy they could be any of the options they are handed on with
SETTINGS = [dict(stride=s, padding=p, dilation=d) for s, p, d in itertools.product((1, 2), (0, 1, 2), (1, 2))]


def lesson(x: np.ndarray, w: np.ndarray, knobs: Knobs) -> dict[str, Any]:
    """Everything the first three sections start from.

    Args:
      x: input `(h, w)`, one image of one channel.
      w: kernel `(kh, kw)`.
      knobs: `stride`, `padding` and `dilation`.

    Returns:
      A dictionary of plain lists and numbers.

    Raises:
      ValueError: the kernel does not fit, as `conv2d` says it.
    """
    image, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    y = layer(image, kernel, knobs)
    g = jnp.ones((1, 1, *y.shape))
    return {
        "start": {"x": listed(image), "w": listed(kernel), "g": listed(g[0, 0]), **knobs},
        "computed": {
            "y": listed(y),
            "columns": listed(columns(image, kernel, knobs)),
            "w": listed(jconv.grad_kernel(image[None, None], (1, 1, *kernel.shape), g, **knobs)[0, 0]),
            "x": listed(jconv.grad_input((1, 1, *image.shape), kernel[None, None], g, **knobs)[0, 0]),
        },
        "jax_grad": jax_grads(image, kernel, knobs),
        "kernels": [{"name": name, "meaning": MEANING[name], "values": v} for name, v in NAMED.items()],
    }


def layer(x: jax.Array, w: jax.Array, knobs: Knobs) -> jax.Array:
    """One image of one channel through `jconv.conv2d`: (h, w), (kh, kw) → (p, q)."""
    return jconv.conv2d(x[None, None], w[None, None], **knobs)[0, 0]


def columns(x: jax.Array, w: jax.Array, knobs: Knobs) -> jax.Array:
    """The matrix that im2col multiplies with, one column per output position: (r·s, p·q)."""
    call = dict(groups=1, layout=None, padding_mode="zeros", algorithm="im2col", precision=None)
    asked = hashable(knobs | call | {"preferred_element_type": None})
    spec = understand(2, "forward", (1, 1, *x.shape), (1, 1, *w.shape), x.dtype, asked).spec
    return patches(x[None, :, :, None], spec).reshape(spec.positions, spec.taps).T


def jax_grads(x: jax.Array, w: jax.Array, knobs: Knobs) -> dict[str, Any]:
    """`jax.grad` of Σ y for the settings a reader is likely to try, in one compilation."""
    settings = [s for s in [knobs, *(s for s in SETTINGS if s != knobs)] if fits(x.shape, w.shape, s)]

    @jax.jit
    def grads(x: jax.Array, w: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        return [jax.grad(lambda x, w, s=s: layer(x, w, s).sum(), (0, 1))(x, w) for s in settings]

    found = zip(settings, grads(x, w), strict=True)
    return {",".join(map(str, s.values())): {"x": listed(dx), "w": listed(dw)} for s, (dx, dw) in found}


def fits(size: tuple[int, ...], kernel: tuple[int, ...], knobs: Knobs) -> bool:
    """Whether there is any output."""
    pairs = zip(size, kernel, strict=True)
    return all(h + 2 * knobs["padding"] > (k - 1) * knobs["dilation"] for h, k in pairs)


def listed(values: jax.Array) -> list[list[float]]:
    """Nested lists, whole numbers without their `.0`, the rest as short as float32 allows."""
    return [[int(v) if v == int(v) else float(str(v)) for v in row] for row in np.asarray(values)]
