"""How the tests' programs are compiled: most run once, and nearly all the time goes into compiling them.

LLVM takes half of it without optimising.  Of the rest three quarters are one of the two emitters of fusions,
which jaxlib 0.10 has an option to leave out.  With JCONV_TESTS_COMPILE=as_users, or hypothesis's profile
"deep", all tests compile as a user's programs do; else those do that ask for `AS_USERS`.
"""

import os

import jax

OPTIONS = {  # here, by default
    "xla_backend_optimization_level": (0, 3),
    "xla_llvm_disable_expensive_passes": (True, False),
    "xla_cpu_parallel_codegen_split_count": (1, 32),
}
if jax.version.__version_info__[:2] == (0, 10):  # jaxlib ends a process whose flags hold one it does not know
    OPTIONS["xla_cpu_use_fusion_emitters"] = (False, True)
if os.environ.get("JCONV_TESTS_COMPILE") == "as_users" or os.environ.get("HYPOTHESIS_PROFILE") == "deep":
    OPTIONS = {}

AS_USERS = {name: default for name, (_, default) in OPTIONS.items()}  # as `compiler_options` of `jax.jit`
AT_ONCE = [f"--{name}={str(here).lower()}" for name, (here, _) in OPTIONS.items()]


def environment():
    """What a process has to start with to compile at once."""
    return {"XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *AT_ONCE])}


def at_once():
    """From now on this process compiles so; its children do where they are given `environment`."""
    before = os.environ.copy()
    os.environ.update(environment())
    jax.devices()  # reads it, once and for all
    del os.environ["XLA_FLAGS"]
    os.environ.update(before)
