#!/usr/bin/env bash
# JAX 0.10.2 (jaxlib 0.10.2) on CPU: the kernel's gradient of a padded 1×1 convolution takes more than
# ten times as long as that of the same convolution of an image that was padded before.
#
# Both are the same numbers.  The kernel's gradient is a convolution of x with the output's gradient, which
# here is larger than x: XLA:CPU then leaves the fast library for another one, which copies a patch nearly as
# large as the image for every output.
#
# Seen on 2 cores of an Intel Xeon (November 2026), 1×1 128→256 on 8×28×28, NHWC, padding 1:
#
#     padding=1 in the convolution 288 ms, jnp.pad before it 20.8 ms
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'PY'
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

numbers = ("NHWC", "HWIO", "NHWC")
rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((8, 28, 28, 128), "float32"))
w = jnp.asarray(rng.standard_normal((1, 1, 128, 256), "float32"))
g = jnp.asarray(rng.standard_normal((8, 30, 30, 256), "float32"))


def inside(w):
    return lax.conv_general_dilated(x, w, (1, 1), [(1, 1), (1, 1)], dimension_numbers=numbers)


def before(w):
    padded = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return lax.conv_general_dilated(padded, w, (1, 1), "VALID", dimension_numbers=numbers)


def seconds(conv):
    gradient = jax.jit(lambda w, g: jax.vjp(conv, w)[1](g)[0])
    result = jax.block_until_ready(gradient(w, g))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(gradient(w, g))
        times.append(time.perf_counter() - start)
    return min(times), result


(slow, one), (fast, other) = seconds(inside), seconds(before)
print(f"jax {jax.__version__}: padding=1 in the convolution {slow * 1e3:.0f} ms, jnp.pad before it {fast * 1e3:.1f} ms")
assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()
assert slow > 5 * fast, "it is no longer slow"
PY
