"""The names of JAX that jconv needs and JAX does not promise, all in one place.

They are two: where JAX keeps the rules by which a primitive is lowered, since a rule that takes some
equations over has to know what became of the others; and the context of the equation being lowered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import mlir

from jconv.mark import word_of

Rule = Callable[..., Any]
VERSIONS = "jax 0.10 to 0.12"  # the tests have run with


def rules_of(primitive: Any) -> dict[str | None, Rule]:
    """The lowering rules of a primitive by platform, None for the one that all others have."""
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
