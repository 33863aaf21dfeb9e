"""What jconv uses of JAX and JAX does not promise, all in one place.

Each name may move with any release of JAX.  What only improves something is done without where it is
missing; what `accelerate` and `install` cannot do without is an error that says so.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import mlir, partial_eval

from jconv.runtime.mark import word_of

Rule = Callable[..., Any]
lax_conv = jax.lax.conv_general_dilated  # taken at import: jconv's own may be put in its place later
VERSIONS = "jax 0.10 to 0.12"  # which the tests have run with


def rules_of(primitive: Any) -> dict[str | None, Rule]:
    """The lowering rules of a primitive by platform, None for the one that all others have: a rule that takes
    some equations over has to know what becomes of the rest."""
    try:
        rules: dict[str | None, Rule] = {None: mlir._lowerings[primitive].rule}
        for platform, theirs in mlir._platform_specific_lowerings.items():
            if primitive in theirs:
                rules[platform] = theirs[primitive].rule
    except (AttributeError, KeyError) as error:
        raise _unknown(f"lowering rules ({error})") from error
    return rules


def word_of_rule(ctx: Any) -> str:
    """The word that the equation being lowered is marked with."""
    try:
        return word_of(ctx.jaxpr_eqn_ctx)
    except AttributeError as error:
        raise _unknown(f"the context of an equation ({error})") from error


def _unknown(what: str) -> ImportError:
    return ImportError(
        f"jax {jax.__version__} keeps {what} where jconv does not find it: accelerate and install work with"
        f" {VERSIONS}; jconv's own functions, such as jconv.conv_general_dilated, do not need it"
    )


def needs_devices(primitive: Any) -> None:
    """Have jit tell the lowering of `primitive` the devices; without, it is left to the partitioner."""
    try:
        from jax._src.dispatch import prim_requires_devices_during_lowering
    except ImportError:
        return
    prim_requires_devices_during_lowering.add(primitive)


def entries(sharding: Any, mesh: jax.sharding.Mesh) -> tuple[Any, ...]:
    """Those of the `PartitionSpec` of an array, as the partitioner hands it over; none, so that the array is
    gathered, where it is cut by a part of a mesh axis, for which a `PartitionSpec` has no word."""
    try:
        from jax._src.sharding_impls import parse_flatten_op_sharding

        return tuple(parse_flatten_op_sharding(sharding._hlo_sharding, mesh)[0])
    except (ImportError, ValueError, LookupError, AssertionError, NotImplementedError, StopIteration):
        return ()


def checks_for_nans(primitive: Any) -> None:
    """Have checkify's float checks look at results of `primitive`; without, they pass over it."""
    try:
        from jax._src.checkify import error_checks, nan_error_check
    except ImportError:
        return
    error_checks[primitive] = functools.partial(nan_error_check, primitive)


def split_by_checkpoint(primitive: Any, rule: Rule) -> None:
    """Have `jax.checkpoint` split equations of `primitive` by `rule`; without, a policy that names lax's
    convolution says nothing of them."""
    rules = getattr(partial_eval, "partial_eval_jaxpr_custom_rules", None)
    if rules is not None:
        rules[primitive] = rule
