"""Policies of `jax.checkpoint`, which decide by primitive what is kept for the backward pass.

`dots_saveable` and its like keep "the result of `conv_general_dilated_p`", the very primitive that is
replaced.  So where a checkpoint is rewritten its policy is asked in lax's terms, and keeps what it kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jconv.accelerate.takeover import LAX
from jconv.algorithms.xla import channels_last
from jconv.derivatives import PRIMITIVES
from jconv.spec import ConvSpec


@dataclasses.dataclass(frozen=True)
class InLaxTerms:
    """A policy that answers for jconv's primitives what it answers for lax's convolution.

    Args:
      policy: the policy as the user gave it.
    """

    policy: Callable[..., Any]

    def __call__(self, primitive: Any, *avals: Any, **params: Any) -> Any:
        """The policy's word on an equation."""
        if primitive in PRIMITIVES.values():
            return self.policy(LAX, *avals, **_lax_params(params["spec"]))
        return self.policy(primitive, *avals, **params)


def _lax_params(spec: ConvSpec) -> dict[str, Any]:
    """The parameters of the forward convolution, channels last, as lax would have them."""
    return {
        "window_strides": spec.strides, "padding": spec.padding, "lhs_dilation": spec.lhs_dilation,
        "rhs_dilation": spec.rhs_dilation, "dimension_numbers": channels_last(spec.ndim),
        "feature_group_count": spec.groups, "batch_group_count": 1, "precision": spec.precision,
        "preferred_element_type": spec.y_dtype, "out_sharding": None,
    }  # fmt: skip
