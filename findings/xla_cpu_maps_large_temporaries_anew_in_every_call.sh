#!/usr/bin/env bash
# JAX 0.10.2 (jaxlib 0.10.2) on CPU, glibc 2.36: a compiled program allocates its temporaries in one piece in
# every call, and glibc maps a piece of more than 32 MiB anew each time, however often it was freed.  So from
# there on every page of the temporaries faults in every call.  glibc's variables MALLOC_MMAP_THRESHOLD_ and
# MALLOC_TRIM_THRESHOLD_ end it, both of them and neither alone.  (0.12.0.1 does the same.)
#
# Seen on 2 cores of an Intel Xeon (November 2026), page faults a call with 36 MiB of temporaries:
#
#     9217, which is one a page         with the variables: 0, in some runs a few hundred
#
# It is not small: of 76 ms for a training step of Keras's MobileNetV2 at batch 1, whose temporaries take
# 56 MiB, 30 went with the variables.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat >"$folder/faults.py" <<'PY'
import resource
import sys

import jax
import jax.numpy as jnp
from jax import lax

CALLS = 50


@jax.jit
def step(x):
    wide = lax.optimization_barrier(x[:, None] * x)
    return wide @ x


def faults_a_call(x):
    def until_now():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    for _ in range(CALLS):
        step(x).block_until_ready()
    before = until_now()
    for _ in range(CALLS):
        step(x).block_until_ready()
    return (until_now() - before) / CALLS


x = jnp.ones(3072)
temporary = step.lower(x).compile().memory_analysis().temp_size_in_bytes
pages, faults = temporary / resource.getpagesize(), faults_a_call(x)
print(f"jax {jax.__version__}{sys.argv[1]}: {temporary / 2**20:.0f} MiB, {faults:.0f} page faults a call")
assert (faults < 0.5 * pages) if sys.argv[1] else (faults > 0.9 * pages), "it is no longer so"
PY
export JAX_PLATFORMS=cpu
"$folder/env/bin/python" "$folder/faults.py" ""
export MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592
"$folder/env/bin/python" "$folder/faults.py" " with the variables"
