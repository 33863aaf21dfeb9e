"""Sixteen kernels, one call: an ensemble of layers under vmap, forward and backward.

    python examples/kernel_ensemble.py

Each member of an ensemble has kernels of its own.  In a Python loop that is sixteen small convolutions.
The usual trick writes them as one grouped convolution by hand: members beside each other as channels,
`groups=16`.  `jax.vmap` says the same in a word, and jconv takes the groups as what they are.
"""

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.comparison import compare, conditions
from jconv.testing import tolerance

MEMBERS, SIDE, CHANNELS = 16, 28, 32


def member(x, w):
    """One member: (h, w, c) → (h, w, o)."""
    return jconv.conv2d(x, w, padding=1, layout="NHWC")


def lax_member(x, w):
    """The same by JAX's own convolution, which wants a batch axis."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], w, (1, 1), "SAME", dimension_numbers=numbers)[0]


def loop(x, w):
    """One member after another, in one compiled program."""
    return jnp.stack([member(x[i], w[i]) for i in range(MEMBERS)])


def by_groups(x, w):
    """The trick by hand: (m, h, w, c) → (h, w, m·c), kernels (m, r, s, c, o) → (r, s, c, m·o)."""
    beside = x.transpose(1, 2, 0, 3).reshape(SIDE, SIDE, MEMBERS * CHANNELS)
    kernels = w.transpose(1, 2, 3, 0, 4).reshape(3, 3, CHANNELS, MEMBERS * CHANNELS)
    y = jconv.conv2d(beside, kernels, padding=1, groups=MEMBERS, layout="NHWC")
    return y.reshape(SIDE, SIDE, MEMBERS, CHANNELS).transpose(2, 0, 1, 3)


def torch_by_groups(x, w):
    """The trick in PyTorch, where it is installed: a call that gives (m, h, w, o)."""
    if not importlib.util.find_spec("torch"):
        return {}
    torch = importlib.import_module("torch")
    beside = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).reshape(1, MEMBERS * CHANNELS, SIDE, SIDE)
    kernels = torch.tensor(np.asarray(w)).permute(0, 4, 3, 1, 2).reshape(-1, CHANNELS, 3, 3).contiguous()

    def call():
        y = torch.nn.functional.conv2d(beside, kernels, padding=1, groups=MEMBERS)
        return y.reshape(MEMBERS, CHANNELS, SIDE, SIDE).permute(0, 2, 3, 1)

    return {"PyTorch, groups by hand": call}


def gradients(of):
    """The kernel gradient of every member, given the gradient at its output."""
    return jax.vmap(lambda x, w, g: jax.vjp(lambda w: of(x, w), w)[1](g)[0])


def main():
    """Three tables: each member on its own input, all on the same one, and the backward pass."""
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.standard_normal((MEMBERS, SIDE, SIDE, CHANNELS)), jnp.float32) for _ in "xg")
    w = jnp.asarray(rng.standard_normal((MEMBERS, 3, 3, CHANNELS, CHANNELS)), jnp.float32)
    bound = tolerance("float32", 9 * CHANNELS)
    print(conditions())

    print(f"\n{MEMBERS} members, 3×3, {CHANNELS} → {CHANNELS} channels, {SIDE}×{SIDE}")
    print("each on an input of its own")
    ways = {
        "lax under vmap": jax.vmap(lax_member), "jconv in a Python loop": loop,
        "jconv, groups by hand": by_groups, "jconv under vmap": jax.vmap(member),
    }  # fmt: skip
    print(compare(ways, x, w, bound=bound, others=torch_by_groups(x, w)))

    print("\nall on one input")
    ways = {
        "lax under vmap": jax.vmap(lax_member, (None, 0)),
        "jconv in a Python loop": lambda x, w: loop([x] * MEMBERS, w),
        "jconv under vmap": jax.vmap(member, (None, 0)),
    }
    print(compare(ways, x[0], w, bound=bound))

    print("\ntheir kernel gradients, each on an input of its own")
    ways = {
        "lax under vmap": gradients(lax_member),
        "jconv in a Python loop": lambda x, w, g: jax.vjp(lambda w: loop(x, w), w)[1](g)[0],
        "jconv under vmap": gradients(member),
    }
    print(compare(ways, x, w, g, bound=tolerance("float32", SIDE * SIDE)))


if __name__ == "__main__":
    main()
