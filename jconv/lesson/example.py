"""The numbers the page starts from, all computed by jconv: outputs, columns, gradients.

Two channels in and two out, and no symmetric accidents: kernels without a pattern, an upstream gradient that
differs from cell to cell, so that nothing is 0 or equal by chance and a flip or a mix-up shows.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.lesson.kernels import MEANING, NAMED
from jconv.textbook.example import INPUT

X = np.stack([INPUT, [[1, 1, 2, 3, 2], [1, 0, 1, 3, 1], [1, 3, 2, 0, 3], [3, 0, 0, 0, 2], [2, 0, 3, 0, 2]]])
W = np.array(
    [
        [[[-1, 1, 0], [1, -1, -2], [1, -2, -2]], [[-2, -2, 0], [2, 1, 1], [2, 3, 2]]],
        [[[-1, -2, -1], [1, 1, 3], [-1, 3, -1]], [[3, 3, 3], [1, 3, 2], [-1, 0, -2]]],
    ]
)
B = np.array([1, -2])
G = np.array([[[-2, 3, -1], [3, -2, -1], [3, -2, 2]], [[1, -1, 3], [-2, 2, 1], [1, 2, 3]]])
MOST = (3, 20, 20)  # what a reader can set: 3 channels, a 12×12 input padded by 4 under a kernel of one tap

Knobs = dict[str, Any]  # int each; to mypy they could be any of the options they are handed on with
Arrays = tuple[jax.Array, jax.Array, jax.Array]
SETTINGS = [dict(stride=s, padding=p, dilation=d) for s, p, d in itertools.product((1, 2), (0, 1, 2), (1, 2))]


def upstream(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient (o, p, q) that arrives from above until the reader writes another: `G`, and around it
    drawn numbers without a 0.

    >>> upstream((1, 2, 3))
    array([[[-2,  3, -1],
            [ 3, -2, -1]]])
    """
    every = np.random.default_rng(0).choice([-2, -1, 1, 2, 3], MOST)
    every[:2, :3, :3] = G
    return every[tuple(map(slice, shape))]


def lesson(x: np.ndarray, w: np.ndarray, b: np.ndarray, knobs: Knobs) -> dict[str, Any]:
    """Everything the first three sections start from.

    Args:
      x: input `(c, h, w)`, one image.
      w: kernels `(o, c, kh, kw)`.
      b: bias `(o,)`.
      knobs: `stride`, `padding` and `dilation`.

    Returns:
      A dictionary of plain lists and numbers.

    Raises:
      ValueError: the kernel does not fit, as `conv2d` says it.
    """
    image, kernels, bias = (jnp.asarray(array, jnp.float32) for array in (x, w, b))
    given = image, kernels, bias
    y = layer(*given, knobs)
    g = jnp.asarray(upstream(y.shape), jnp.float32)
    return {
        "start": {**dict(zip("xwb", map(listed, given), strict=True)), "g": listed(g), **knobs},
        "simple": simple(),
        "upstream": listed(upstream(MOST)),
        "computed": {
            "y": listed(y),
            "columns": listed(columns(image, kernels, knobs)),
            "w": listed(jconv.grad_kernel(image[None], kernels.shape, g[None], **knobs)),
            "x": listed(jconv.grad_input((1, *image.shape), kernels, g[None], **knobs)[0]),
            "b": listed(g.sum((1, 2))),
        },
        "jax_grad": jax_grads(given, knobs),
        "kernels": [{"name": name, "meaning": MEANING[name], "values": v} for name, v in NAMED.items()],
    }


def simple() -> dict[str, Any]:
    """One channel in and out, no bias: the textbook's 5×5 input under Sobel's kernel."""
    w, b = np.asarray(NAMED["sobel-x"])[None, None], np.zeros(1)
    of_one = {"x": INPUT[None], "w": w, "b": b, "g": np.ones((1, 3, 3))}
    return {name: listed(array) for name, array in of_one.items()} | dict(stride=1, padding=0, dilation=1)


def layer(x: jax.Array, w: jax.Array, b: jax.Array, knobs: Knobs) -> jax.Array:
    """One image through `jconv.conv2d`: (c, h, w), (o, c, kh, kw), (o,) → (o, p, q)."""
    return jconv.conv2d(x, w, b, **knobs)


def columns(x: jax.Array, w: jax.Array, knobs: Knobs) -> jax.Array:
    """The matrix that im2col multiplies with, one column per output position: (c·r·s, p·q)."""
    return jconv.unfold(x, w.shape[2:], **knobs)


def jax_grads(given: Arrays, knobs: Knobs) -> dict[str, Any]:
    """`jax.grad` of Σ g·y for the settings a reader is likely to try, in one compilation."""
    x, w, _ = given
    settings = [s for s in [knobs, *(s for s in SETTINGS if s != knobs)] if fits(x.shape[1:], w.shape[2:], s)]

    def loss(x: jax.Array, w: jax.Array, b: jax.Array, setting: Knobs) -> jax.Array:
        y = layer(x, w, b, setting)
        return jnp.vdot(y, upstream(y.shape))

    @jax.jit
    def grads(*given: jax.Array) -> list[Arrays]:
        return [jax.grad(loss, (0, 1, 2))(*given, setting) for setting in settings]

    return {
        ",".join(map(str, setting.values())): {
            "g": listed(upstream(layer(*given, setting).shape)),
            **dict(zip("xwb", map(listed, found), strict=True)),
        }
        for setting, found in zip(settings, grads(*given), strict=True)
    }


def fits(size: tuple[int, ...], kernel: tuple[int, ...], knobs: Knobs) -> bool:
    """Whether there is any output."""
    pairs = zip(size, kernel, strict=True)
    return all(h + 2 * knobs["padding"] > (k - 1) * knobs["dilation"] for h, k in pairs)


def listed(values: Any) -> Any:
    """Nested lists, whole numbers without their `.0`, the rest as short as float32 allows."""
    array = np.asarray(values)
    if array.ndim:
        return [listed(one) for one in array]
    return int(array) if array == int(array) else float(str(array.astype(np.float32)))
