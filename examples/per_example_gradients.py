"""Per-example gradients, clipped one by one (DP-SGD), on scikit-learn's handwritten digits.

    python examples/per_example_gradients.py

Differentially private training (Abadi et al., "Deep Learning with Differential Privacy", 2016) cuts the
gradient of every example to a norm of at most C before it sums them, and adds noise to the sum.  So it
needs each example's own gradient.  `vmap(grad(loss), (None, 0, 0))` says just that.  The vmapped kernel
gradient is a grouped convolution, a group an example, and there are several routes to it: jconv takes
the one that its cost model expects to be fastest, or the one that `algorithm=` names.

This shows the gradients and what they cost; it keeps no account of the privacy that was spent.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jconv
from jconv.bench.comparison import compare, conditions
from jconv.testing import tolerance

CLIP, NOISE, RATE, BATCH, STEPS = 1.0, 0.6, 0.5, 64, 120
HELD_BACK = 360  # digits for the test
ROUTES = {
    "im2col": "patches, then one matrix product an example",
    "shift": "one matrix product an example and tap, no patches",
    "per_group": "one of lax's dense convolutions an example",
    "xla": "the grouped convolution as lax has it",
}


def by_jconv(x, w, stride, algorithm="auto"):
    """(n, h, w, c) under (r, s, c, o)."""
    return jconv.conv2d(x, w, stride=stride, padding=1, layout="NHWC", algorithm=algorithm)


def by_lax(x, w, stride):
    """The same by JAX's own convolution."""
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def scores(conv, params, image):
    """(8, 8) → (10,): two convolutions and a matrix product."""
    x = jax.nn.softplus(conv(image[None, :, :, None], params["w1"], 1))
    x = jax.nn.softplus(conv(x, params["w2"], 2))
    return x.reshape(-1) @ params["w3"]


def loss(conv, params, image, digit):
    """Surprise at the right digit."""
    return -jax.nn.log_softmax(scores(conv, params, image))[digit]


def start(seed):
    """Kernels drawn so that the size of the numbers stays the same from layer to layer."""
    shapes = {"w1": (3, 3, 1, 16), "w2": (3, 3, 16, 32), "w3": (4 * 4 * 32, 10)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        name: jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:-1]))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def clipped(gradient):
    """One example's gradient, all arrays together no longer than CLIP."""
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    return jax.tree.map(lambda g: g * jnp.minimum(1, CLIP / norm), gradient)


def one_example(conv, params, image, digit):
    """Its gradient, clipped."""
    return clipped(jax.grad(functools.partial(loss, conv))(params, image, digit))


def at_once(conv):
    """Sum of the clipped gradients: vmap, as anybody would write it."""
    per_example = jax.vmap(functools.partial(one_example, conv), (None, 0, 0))
    return lambda *args: jax.tree.map(lambda g: g.sum(0), per_example(*args))


def microbatches(conv):
    """The same, one example at a time: a loop of batches of one, as is done where memory is short."""

    def summed(params, images, digits):
        def step(total, example):
            return jax.tree.map(jnp.add, total, one_example(conv, params, *example)), None

        return jax.lax.scan(step, jax.tree.map(jnp.zeros_like, params), (images, digits))[0]

    return summed


@jax.jit
def private_step(params, key, images, digits):
    """Clip, sum, add noise of NOISE · CLIP, and go a step against the mean."""
    total = at_once(by_jconv)(params, images, digits)
    keys = dict(zip(total, jax.random.split(key, len(total)), strict=True))
    noisy = {name: g + NOISE * CLIP * jax.random.normal(keys[name], g.shape) for name, g in total.items()}
    return jax.tree.map(lambda p, g: p - RATE * g / len(images), params, noisy)


def train(params, images, digits):
    """STEPS private steps; the share of held-back digits that is then read."""
    rng, keys = np.random.default_rng(0), jax.random.split(jax.random.key(1), STEPS)
    for key in keys:
        chosen = HELD_BACK + rng.choice(len(images) - HELD_BACK, BATCH, replace=False)
        params = private_step(params, key, images[chosen], digits[chosen])
    read = jax.vmap(functools.partial(scores, by_jconv), (None, 0))(params, images[:HELD_BACK]).argmax(1)
    return float((read == digits[:HELD_BACK]).mean())


def main():
    """A table of ways, one of routes, and a little training."""
    pixels, digits = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8)
    params, batch = start(0), (images[:BATCH], digits[:BATCH])
    # a chain of three products forward and as many back, the last one over the output's positions
    bound = 2 * sum(tolerance("float32", k) for k in (9, 9 * 16, 4 * 4 * 32, 8 * 8))
    print(conditions())

    print(f"\nclipped gradients of {BATCH} digits, summed")
    ways = {
        "lax under vmap": at_once(by_lax), "lax in microbatches": microbatches(by_lax),
        "jconv in microbatches": microbatches(by_jconv), "jconv under vmap": at_once(by_jconv),
    }  # fmt: skip
    print(compare(ways, params, *batch, bound=bound))

    print("\nthe routes by name, for every convolution in it; lax first")
    named = {name: at_once(functools.partial(by_jconv, algorithm=name)) for name in ROUTES}
    routes = {"lax": at_once(by_lax)} | named | {"auto": at_once(by_jconv)}
    print(compare(routes, params, *batch, bound=bound))
    for name, what in ROUTES.items():
        print(f"  {name:13s}  {what}")
    print("\nwhat auto takes:\n")
    print(jconv.explain(at_once(by_jconv), params, *batch))

    accuracy = train(params, images, digits)
    print(f"\n{STEPS} private steps: {accuracy:.1%} of the {HELD_BACK} digits held back are read")
    assert accuracy > 0.4, f"{accuracy:.1%} read"


if __name__ == "__main__":
    main()
