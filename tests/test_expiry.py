"""Workarounds of one version of one compiler: what each is there for, and whether it still is.

In the code a workaround is marked by a comment in one form,

    # until jaxlib 0.12: the fault        mended in that version
    # until jaxlib ?: the fault           in every version so far

and here stands, by the file and the words of the mark, what shows the fault in the version that runs.  Where
a fault is not seen, the mark gets a version; where no version that pyproject.toml supports has it, the
workaround goes.  Where only a race could tell there is no mark: docs/measured.md, "Workarounds that are only
about speed".
"""

import json
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jaxlib
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse

from jconv.algorithms.xla import XLA, XLA_EIGEN
from jconv.runtime import verified
from jconv.spec import ConvSpec

ROOT = Path(__file__).parent.parent
MARK = re.compile(r"# until (jax|jaxlib) ([\d.]+|\?): (.+)")
VERSION = {"jax": jax.__version__, "jaxlib": jaxlib.version.__version__}
RNG = np.random.default_rng(23)


def marks():
    """{(file, words): (library, version)} of all marks in the code."""
    return {
        (path.relative_to(ROOT / "jconv").as_posix(), words): (library, version)
        for path in sorted((ROOT / "jconv").rglob("*.py"))
        for library, version, words in MARK.findall(path.read_text(encoding="utf-8"))
    }


def numbers(version):
    return tuple(map(int, re.findall(r"\d+", version)))


# -- the faults: each is True where it is seen -----------------------------------------------------


def reads_beside_x():
    x = RNG.normal(size=(2, 9, 4)).astype("float32")
    w = RNG.normal(size=(2, 4, 4)).astype("float32")
    last = ("NWC", "WIO", "NWC")
    y = jax.jit(lambda x, w: lax.conv_general_dilated(x, w, (1,), [(-1, 1)], dimension_numbers=last))(x, w)
    windows = np.stack([x[:, 1:], np.pad(x[:, 2:], [(0, 0), (0, 1), (0, 0)])], axis=2)
    expected = np.einsum("npkc,kco->npo", windows.astype("float64"), w)
    return not np.allclose(y, expected, atol=1e-4)


def goes_to_ynnpack():
    if platform.machine() not in ("x86_64", "AMD64") or jax.default_backend() != "cpu":
        pytest.skip("YNNPACK's rules are read where the tests run: x86-64")
    spec = ConvSpec.of(
        spatial=(16, 15), kernel=(3, 3), padding=((1, 1), (1, 1)), in_channels=32, out_channels=24
    )
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in (spec.x_shape, spec.w_shape))
    plain, longer = (
        jax.jit(each.forward, static_argnums=2).lower(x, w, spec).compile().as_text()
        for each in (XLA, XLA_EIGEN)
    )
    assert "__ynn_fusion" not in longer, "the row of zeros no longer keeps it from YNNPACK"
    return "__ynn_fusion" in plain


def bcoo_keeps_its_batch_axes():
    a = sparse.BCOO.fromdense(jax.numpy.ones((2, 3, 4)), n_batch=1)
    try:
        a.transpose((1, 0, 2))
    except NotImplementedError:
        return True
    return False


def of_onednn(program):
    """What a child process prints, since oneDNN may end it; its last line is JSON."""
    dtype = "bfloat16" if "bfloat16" in program else "float32"
    if reason := verified.unverifiable() or verified.refusal_of(dtype, dtype):
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{program}"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


PRELUDE = """
import functools, jax, jax.numpy as jnp
from jconv.algorithms.onednn_calls import convolution
from jconv.spec import ConvSpec
def problem(dtype, channels):
    spec = ConvSpec.of(spatial=(16, 16), kernel=(3, 3), in_channels=channels, out_channels=8, dtype=dtype)
    return spec, jnp.ones(spec.x_shape, dtype), jnp.ones(spec.w_shape, dtype)
"""


def cannot_be_serialised():
    return of_onednn("""
from jax.experimental.serialize_executable import serialize
spec, x, w = problem("float32", 4)
compiled = jax.jit(functools.partial(convolution, spec=spec)).lower(x, w).compile()
try:
    serialize(compiled)
    print("false")
except Exception:  # MemoryError so far
    print("true")
""")


def lets_a_nan_out_of_its_window():
    """The NaN at (5, 5) is seen by the windows that begin in the rows and columns 3 to 5."""
    wrong = of_onednn("""
spec, x, w = problem("bfloat16", 3)
y = jax.jit(functools.partial(convolution, spec=spec))(x.at[0, 5, 5, 0].set(jnp.nan), w)
print(jnp.argwhere(jnp.isnan(y).any(-1)[0]).tolist())
""")
    return not all(3 <= row <= 5 and 3 <= column <= 5 for row, column in wrong)


def loses_channels_of_a_column():
    return of_onednn("""
spec = ConvSpec.of(batch=8, spatial=(202, 1), kernel=(200, 1), in_channels=40, out_channels=64)
x, w = jnp.ones(spec.x_shape), jnp.ones(spec.w_shape)
print("false" if (jax.jit(functools.partial(convolution, spec=spec))(x, w) == 8000).all() else "true")
""")


FAULTS = {
    ("algorithms/xla.py", "XLA:CPU reads beside x where a negative lo meets a positive hi"): reads_beside_x,
    ("algorithms/xla.py", "XLA:CPU hands a 2-D convolution to YNNPACK by its sizes"): goes_to_ynnpack,
    ("calculus/interpreters.py", "the batch axes of a BCOO array cannot move"): bcoo_keeps_its_batch_axes,
    ("runtime/verified.py", "a program that calls oneDNN cannot be serialised"): cannot_be_serialised,
    (
        "algorithms/onednn_direct.py",
        "oneDNN pairs an odd channel of bfloat16 with its neighbour times zero",
    ): lets_a_nan_out_of_its_window,
    (
        "algorithms/onednn_direct.py",
        "oneDNN's kernel for one column loses channels beyond a multiple of 16",
    ): loses_channels_of_a_column,
}

# These end the process that shows them.
NOT_SHOWN = {
    ("algorithms/onednn_direct.py", "oneDNN's kernel for one channel, if tall, ends the process"),
    (
        "runtime/verified.py",
        "below AVX-512 oneDNN's `gemm:jit` (many channels, first) hangs or writes past its heap",
    ),
    ("runtime/verified.py", "without avx512_bf16 a batched product waits for itself"),
    (
        "runtime/verified.py",
        "oneDNN's int8 kernels write past their heap where there is padding; so through float32",
    ),
}


# -- the tests -------------------------------------------------------------------------------------


def test_every_mark_has_its_fault_and_every_fault_its_mark():
    assert set(marks()) == set(FAULTS) | NOT_SHOWN


@pytest.mark.parametrize("where", FAULTS, ids=[fault.__name__ for fault in FAULTS.values()])
def test_the_fault_is_there_below_the_version_that_mends_it(where):
    (library, mended), (file, _) = marks()[where], where
    version = VERSION[library]
    if mended != "?" and numbers(version) >= numbers(mended):
        pytest.skip(f"{library} {version} is newer than the fault")
    said = f"{library} {version} does not have the fault: say `until {library} {version}` in jconv/{file}"
    assert FAULTS[where](), f"no longer needed here; {said}"


@pytest.mark.parametrize("where", FAULTS, ids=[fault.__name__ for fault in FAULTS.values()])
def test_a_version_that_is_supported_has_the_fault(where):
    (library, mended), (file, words) = marks()[where], where
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (oldest,) = re.findall(r"^jax>=([\d.]+)$", "\n".join(project["dependencies"]), re.MULTILINE)
    gone = mended != "?" and numbers(oldest) >= numbers(mended)
    assert not gone, f"no longer needed: delete `until {library} {mended}: {words}` in jconv/{file}"
