"""Where oneDNN may be called, why not elsewhere, and what holds for programs that are kept.

No test depends on the machine: `fine` puts a processor, a system and a jaxlib in place that are on the list,
and what is asked is only chosen, never run.
"""

import os
import subprocess
import sys
import types
from pathlib import Path

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

import jconv
from jconv.__main__ import main as command_line
from jconv.bench import verify
from jconv.choice import pick
from jconv.runtime import store, verified
from jconv.spec import ConvSpec

DENSE = ConvSpec.of(batch=2, spatial=(28, 28), kernel=(3, 3), in_channels=64, out_channels=64)
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "XLA_FLAGS", "ONEDNN_DEFAULT_FPMATH_MODE")
EVERY = frozenset(verified.FEATURES).union(*(line.needs for line in verified.DTYPES.values()))
PAIRS = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int32"}


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing that a test pretended is remembered."""
    yield
    pick._choose.cache_clear()


@pytest.fixture
def fine(monkeypatch, tmp_path):
    """A machine on which nothing is refused, and a cache file of its own."""
    pick._choose.cache_clear()
    for name in (verified.PORTABLE, verified.TRUSTED, *LIMITS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(verified, "sys", types.SimpleNamespace(platform="linux"))
    monkeypatch.setattr(verified.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(verified, "features", lambda: EVERY)
    monkeypatch.setattr(verified, "VERSION", verified.JAXLIBS[0])
    monkeypatch.setattr(verified, "_compiles", lambda: True)
    for cached in ("_of_the_system", "_of_the_build"):
        monkeypatch.setattr(verified, cached, getattr(verified, cached).__wrapped__)
    store.use(tmp_path / "tuned.json")
    yield monkeypatch
    store.use(None)


def refusal():
    """What `refusal` says, which `choose` has to say too, and "auto" goes on."""
    reason = verified.refusal()
    chosen = pick.choose(DENSE, platform="cpu")
    assert chosen.rejected.get("onednn") == reason or reason is None
    assert (chosen.algorithm.name == "onednn") == (reason is None)
    return reason


def test_what_is_on_the_list_is_not_refused(fine):
    assert refusal() is None
    assert [verified.refusal_of(*pair) for pair in PAIRS.items()] == [None] * len(PAIRS)


OTHERS = [("darwin", "arm64"), ("win32", "AMD64"), ("linux", "aarch64"), ("linux", "ppc64le")]


@pytest.mark.parametrize(("system", "machine"), OTHERS)
def test_other_systems(fine, system, machine):
    fine.setattr(verified, "sys", types.SimpleNamespace(platform=system))
    fine.setattr(verified.platform, "machine", lambda: machine)
    assert refusal() == f"oneDNN was verified on Linux on x86-64, not on {system} on {machine}"
    assert verified.unverifiable() == verified.refusal()


# -- jaxlib ----------------------------------------------------------------------------------------


def test_an_unknown_jaxlib_names_the_command_and_a_verdict_lifts_the_refusal(fine):
    fine.setattr(verified, "VERSION", "9.9.9")
    assert "jaxlib 9.9.9 was not verified; `python -m jconv verify` does it" in refusal()
    store.put({verified.verdict_key(): {"agrees": True}})
    assert refusal() is None
    fine.setattr(verified, "VERSION", "9.9.10")
    assert "jaxlib 9.9.10 was not verified" in refusal(), "the verdict is on another one"
    fine.setattr(verified, "VERSION", "9.9.9")
    fine.setattr(verified, "features", lambda: EVERY | {"avx512_vnni"})
    assert "was not verified" in refusal(), "the verdict is on another processor"


def test_the_verdict_survives_the_process(fine, tmp_path):
    fine.setattr(verified, "VERSION", "9.9.9")
    store.put({verified.verdict_key(): {"agrees": True}})
    store.use(tmp_path / "tuned.json")  # as the next process reads it
    assert refusal() is None


@pytest.mark.parametrize("version", ["9.9.9", verified.JAXLIBS[0]])
def test_a_verdict_against_it_refuses(fine, version):
    """Whether the version is on the list or not: this is the machine it runs on."""
    fine.setattr(verified, "VERSION", version)
    store.put({verified.verdict_key(): {"agrees": False}})
    assert "did not agree" in refusal()
    assert verified.unverifiable() is None, "it may be verified again"
    fine.setenv(verified.TRUSTED, "1")
    assert verified.refusal() is None, "the child process that verifies it anew"


def test_a_jaxlib_built_without_it(fine):
    fine.setattr(verified, "_compiles", lambda: False)
    assert refusal() == f"jaxlib {verified.JAXLIBS[0]} was built without oneDNN here"
    assert verified.unverifiable() == verified.refusal()


def test_a_compiler_that_does_not_know_the_call_answers_no(monkeypatch):
    ffi_call = jax.ffi.ffi_call
    unknown = lambda name, *args, **words: ffi_call("jconv has no such call", *args, **words)  # noqa: E731
    monkeypatch.setattr(jax.ffi, "ffi_call", unknown)
    assert verified._compiles() is False


def test_asking_is_free_of_the_users_contexts(monkeypatch):
    """Inside a trace, with jit disabled or with 64-bit types it is the same question."""
    said = verified._of_the_build()
    seen = []

    def trace(x):
        seen.append(verified._of_the_build.__wrapped__())
        return x

    jax.make_jaxpr(trace)(1.0)
    with jax.disable_jit(), jax.enable_x64(True):
        trace(1.0)
    assert seen == [said, said]


# -- dtypes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "XLA_FLAGS"])
@pytest.mark.parametrize(("dtype", "result"), PAIRS.items())
def test_a_limit_of_the_instruction_set_refuses_what_was_not_verified_with_it(fine, variable, dtype, result):
    flags = variable == "XLA_FLAGS"
    fine.setenv(variable, "--xla_foo=1 --xla_cpu_max_isa=AVX2" if flags else "AVX2")
    assert verified.refusal_of(dtype, result) == f"{dtype} was not verified with oneDNN limited to AVX2"
    spec = DENSE.replace(x_dtype=dtype, w_dtype=dtype, y_dtype=result)
    pick._choose.cache_clear()
    assert pick.choose(spec, platform="cpu").algorithm.name != "onednn"
    fine.setenv(variable, "--xla_cpu_max_isa=default --xla_foo=1" if flags else "all")
    assert verified.refusal_of(dtype, result) is None, "no limit at all"


@pytest.mark.parametrize(("dtype", "result"), PAIRS.items())
def test_a_processor_without_the_features(fine, dtype, result):
    spec = DENSE.replace(x_dtype=dtype, w_dtype=dtype, y_dtype=result)
    for missing in (*verified.FEATURES, *verified.DTYPES[dtype].needs):
        fine.setattr(verified, "features", lambda missing=missing: EVERY - {missing})
        reason = verified.refusal_of(dtype, result)
        assert reason == f"{dtype} was not verified with oneDNN on a processor without {missing}"
        pick._choose.cache_clear()
        stands_in = missing in verified.DTYPES["bfloat16"].needs  # float32, which does not need it
        assert (pick.choose(spec, platform="cpu").algorithm.name == "onednn") == stands_in
    fine.setattr(verified, "features", frozenset)  # the system does not tell
    assert "without" in verified.refusal_of(dtype, result)
    pick._choose.cache_clear()
    assert pick.choose(spec, platform="cpu").algorithm.name != "onednn"


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("float16", "float16"), ("float64", "float64"), ("complex64", "complex64"), ("int16", "int16"),
     ("int8", "int8"), ("float32", "bfloat16"), ("uint8", "int32")],
)  # fmt: skip
def test_other_dtypes_go_todays_ways(fine, dtype, result):
    assert "was not verified" in verified.refusal_of(dtype, result)


def test_what_shortens_float32_inside_is_refused(fine):
    fine.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert "round float32" in refusal()
    fine.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "strict")
    assert refusal() is None


# -- programs that are kept ------------------------------------------------------------------------

X, W = (DENSE.batch, 64, 28, 28), (64, 64, 3, 3)


def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal(X).astype("float32"), rng.standard_normal(W).astype("float32")


def convolution(algorithm="auto"):
    """A function that no earlier test has compiled."""
    return lambda x, w: jconv.conv2d(x, w, padding=1, algorithm=algorithm)


def by_lax(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))


def compiled_text(fun):
    return jax.jit(fun).lower(*arrays()).compile().as_text()


def calls_onednn(fun):
    return "__onednn" in compiled_text(fun)


@pytest.fixture
def available():
    if reason := verified.refusal() or verified.refusal_of("float32", "float32"):
        pytest.skip(reason)


def test_the_environment_asks_for_portable_programs(fine):
    for value in ("1", "yes"):
        fine.setenv(verified.PORTABLE, value)
        assert "JCONV_PORTABLE asks for portable programs" in refusal()
    for value in ("", "0"):
        fine.setenv(verified.PORTABLE, value)
        assert refusal() is None


def test_the_environment_is_obeyed_by_the_compiled_program(available, monkeypatch):
    assert calls_onednn(convolution())
    monkeypatch.setenv(verified.PORTABLE, "1")
    assert not calls_onednn(convolution())
    with pytest.raises(
        ValueError, match=r"`algorithm`='onednn' refuses .*: JCONV_PORTABLE asks for portable"
    ):
        compiled_text(convolution("onednn"))


@pytest.fixture
def persistent(tmp_path):
    """JAX's persistent compilation cache, for every program however small."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_persistent_cache_min_entry_size_bytes")  # fmt: skip
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path / "kept"), 0, -1), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path / "kept"
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_the_persistent_cache_is_respected(fine, persistent):
    assert "JAX's persistent compilation cache is on" in refusal()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert refusal() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_the_persistent_cache_keeps_what_jconv_compiles(persistent):
    """A warning, as JAX gives one for a program that it cannot keep, would be an error here."""
    before = set(persistent.glob("*"))
    assert not calls_onednn(convolution())
    assert not calls_onednn(jax.grad(lambda x, w: convolution()(x, w).sum(), (0, 1)))
    assert not calls_onednn(jconv.accelerate(by_lax))
    assert len(set(persistent.glob("*-cache")) - before) >= 3


def test_an_exported_program_is_portable():
    exported = jax.export.export(jax.jit(convolution()))(*arrays())
    assert "__onednn" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(*arrays()), by_lax(*arrays()), rtol=1e-3, atol=1e-3)


def test_by_name_it_is_refused_in_an_exported_program(available):
    reason = "`algorithm`='onednn' refuses: the program is exported, and one that calls oneDNN cannot be"
    with pytest.raises(ValueError, match=reason):
        jax.export.export(jax.jit(convolution("onednn")))(*arrays())


@pytest.mark.parametrize(
    "fun",
    [convolution("portable"), jconv.accelerate(by_lax, "portable"),
     jax.grad(lambda x, w: (convolution("portable")(x, w) ** 2).sum(), (0, 1)),
     lambda x, w: jconv.conv_transpose2d(x, w, stride=2, algorithm="portable"),
     jax.vmap(lambda x, w: convolution("portable")(x[None], w), (0, None))],
    ids=["conv2d", "accelerate", "gradients", "transposed", "vmap"],
)  # fmt: skip
def test_a_portable_program_can_be_serialised(fun):
    program = jax.jit(fun).lower(*arrays()).compile()
    assert "__onednn" not in program.as_text()
    again = serialize_executable.deserialize_and_load(*serialize_executable.serialize(program))
    jax.tree.map(np.testing.assert_array_equal, again(*arrays()), program(*arrays()))


# -- the command that verifies ---------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def in_a_process(*args, **environment):
    command = [sys.executable, "-m", "jconv", *args]
    return subprocess.run(
        command, env=os.environ | compiling.environment() | environment, cwd=ROOT, capture_output=True,
        text=True, timeout=900,
    )  # fmt: skip


def test_random_convolutions_agree_and_the_verdict_is_kept(available, tmp_path):
    """500 specs of the list's whole breadth in a child process, which comes back."""
    done = in_a_process("verify", "--specs", "500", "--repeats", "5", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "500 specs of seed 0" in done.stdout
    assert ": 0 wrong" in done.stdout
    assert done.stdout.endswith("oneDNN agrees\n")
    store.use(tmp_path / "jconv" / "tuned.json")
    try:
        kept = store.entry(verified.verdict_key())
    finally:
        store.use(None)
    assert kept == {"agrees": True, "specs": 500, "seed": 0, "repeats": 5}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("ending", ["kill -9 $$", "kill -11 $$", "exit 1"])
def test_a_child_that_dies_is_told_and_its_verdict_refuses(fine, ending, tmp_path, capfd):
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\n{ending}\n")
    dying.chmod(0o755)
    fine.setattr(verify, "sys", types.SimpleNamespace(executable=str(dying), stderr=sys.stderr))
    assert refusal() is None
    assert command_line(["verify", "--specs", "3"]) == 1
    assert "oneDNN is not used: the child process ended with" in capfd.readouterr().out
    pick._choose.cache_clear()
    assert "did not agree" in refusal()
    store.use(tmp_path / "tuned.json")  # as the next process reads it
    assert "did not agree" in verified.refusal()


@pytest.mark.skipif(sys.platform == "win32", reason="a script of POSIX")
def test_one_dtype_alone_keeps_no_verdict(fine, tmp_path):
    fine.setattr(verify, "sys", types.SimpleNamespace(executable="/bin/false", stderr=sys.stderr))
    assert command_line(["verify", "--specs", "3", "--dtype", "float32"]) == 1
    assert not (tmp_path / "tuned.json").exists()


def test_nothing_to_verify_is_told(fine, capsys):
    fine.setattr(verified, "_compiles", lambda: False)
    assert command_line(["verify"]) == 2
    assert "there is nothing to verify: jaxlib" in capsys.readouterr().err


def test_where_every_dtype_is_refused_there_is_nothing_to_verify(fine, capsys):
    """A verdict would be one on nothing, and would hold where the limit is gone."""
    fine.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert command_line(["verify"]) == 2
    assert "float32 was not verified with oneDNN limited to AVX2" in capsys.readouterr().err
    assert not store.entries()


def test_what_is_wrong_is_found(available, monkeypatch, capsys):
    """The child's own checks can fail: a value that is off, and a NaN that leaves its window."""
    by_onednn = verify.evaluate
    args = verify_args(specs=6, dtype="float32")
    monkeypatch.setattr(verify, "evaluate", lambda *args: by_onednn(*args) + 1)
    assert verify._child(args) == 1
    assert "wrong by" in capsys.readouterr().out
    spread = lambda *args: (y := by_onednn(*args)) + jnp.where(jnp.isnan(y).any(), jnp.nan, 0)  # noqa: E731
    monkeypatch.setattr(verify, "evaluate", spread)
    assert verify._child(args) == 1
    assert "a NaN left its window" in capsys.readouterr().out


def test_a_dtype_that_the_processor_lacks_is_not_said_to_agree(fine, capsys):
    fine.setattr(verified, "features", lambda: EVERY | {"amx_bf16"})
    assert command_line(["verify", "--dtype", "bfloat16", "--specs", "3"]) == 2
    told = capsys.readouterr()
    assert "bfloat16 was not verified with oneDNN on a processor with amx_bf16" in told.err
    assert "agrees" not in told.out


def test_a_run_that_ran_nothing_is_not_said_to_agree(fine, capsys, monkeypatch):
    monkeypatch.setattr(verify, "refuses", lambda *args: "not this one")
    args = verify_args(specs=3, dtype="int8")
    assert verify._child(args) == verify.NOTHING_RAN
    monkeypatch.setattr(verify.interrupts, "child", lambda command, environment: verify.NOTHING_RAN)
    assert command_line(["verify", "--dtype", "int8", "--specs", "3"]) == 2
    assert "nothing was verified" in capsys.readouterr().err


def verify_args(**words):
    return types.SimpleNamespace(**dict(specs=6, seed=0, repeats=1, dtype=None) | words)
