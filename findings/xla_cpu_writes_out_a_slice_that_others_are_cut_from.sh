#!/usr/bin/env bash
# JAX 0.10.2 (jaxlib 0.10.2) on CPU: a strided window cut along its rows first and along its columns then, as
# jnp indexing axis by axis does, is not what the same window cut at once is.  XLA joins two slices that follow
# each other, but not where several are cut from the first one: that one it writes to memory.
#
# The nine taps of a 3×3 window with stride 2, times an array and summed, read x as it lies if each is one
# slice.  If each is two, half of x is written out for every row of taps, and the same sums take more than
# twice as long.  (0.12.0.1 writes as much.)
#
# Seen on 2 cores of an Intel Xeon (November 2026):
#
#     bytes of temporaries: one slice a tap 0, two 7289856, which is 3 · 56 · 113 · 96 · 4
#     ms: 0.56 and 1.23
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

size, channels, out = 113, 96, 56
span = 2 * out - 1


def at_once(x, r, s):
    return lax.slice(x, (r, s, 0), (r + span, s + span, channels), (2, 2, 1))


def along_each(x, r, s):
    rows = lax.slice(x, (r, 0, 0), (r + span, size, channels), (2, 1, 1))
    return lax.slice(rows, (0, s, 0), (out, s + span, channels), (1, 2, 1))


def sums(view, x, g):
    """For each row of taps, their products with g, every 14 rows of them added up."""

    def added(r, s):
        return sum(view(x, r, s)[i : i + 4] * g[i : i + 4] for i in range(0, out, 4))

    return [lax.optimization_barrier(jnp.stack([added(r, s) for s in range(3)])) for r in range(3)]


def compiled(view):
    return jax.jit(lambda x, g: sums(view, x, g)).lower(x, g).compile()


rng = np.random.default_rng(0)
x = rng.standard_normal((size, size, channels), dtype="float32")
g = rng.standard_normal((out, out, channels), dtype="float32")
one, two = compiled(at_once), compiled(along_each)
for a, b in zip(one(x, g), two(x, g), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
few, many = (program.memory_analysis().temp_size_in_bytes for program in (one, two))
print(f"jax {jax.__version__}: bytes of temporaries: one slice a tap {few}, two {many}")
assert (few, many) == (0, 3 * out * size * channels * 4), "it is no longer so"
PY
