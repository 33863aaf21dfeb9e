#!/usr/bin/env bash
# JAX 0.10.2 (jaxlib 0.10.2) on CPU: to compile jnp.pad of two axes of an array of four takes several times as
# long as to compile the same pad of the array reshaped to three, of which every byte is the same.
#
# A model with hundreds of padded layers waits for it.  Only some shapes do it: 64 channels on 28×28 does,
# 24 channels on 56×56 does not.
#
# Seen on 2 cores of an Intel Xeon (November 2026), CPU seconds, the least of five:
#
#     (8, 28, 28, 64) 0.18, as (8, 28, 1792) 0.03
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/env/bin/python" - <<'PY'
import time

import jax
import jax.numpy as jnp

n, h, w, c = 8, 28, 28, 64
x = jax.ShapeDtypeStruct((n, h, w, c), "float32")


def four(x):
    return jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])


def three(x):
    padded = jnp.pad(x.reshape(n, h, w * c), [(0, 0), (1, 1), (c, c)])
    return padded.reshape(n, h + 2, w + 2, c)


def cpu_seconds(function):
    times = []
    for _ in range(5):
        jax.clear_caches()
        lowered = jax.jit(function).lower(x)
        start = time.process_time()
        lowered.compile()
        times.append(time.process_time() - start)
    return min(times)


values = jnp.arange(n * h * w * c, dtype="float32").reshape(x.shape)
assert (jax.jit(four)(values) == jax.jit(three)(values)).all()
slow, fast = cpu_seconds(four), cpu_seconds(three)
print(f"jax {jax.__version__}: {x.shape} {slow:.2f}, as ({n}, {h}, {w * c}) {fast:.2f}")
assert slow > 2 * fast, "it is no longer slow"
PY
