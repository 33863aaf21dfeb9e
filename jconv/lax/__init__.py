"""The door in lax's names: drop-ins for all of `jax.lax`'s convolutions; what computes none is lax's own.

lax itself is asked what the result is and what is wrong with the arguments, so shapes, dtypes, weak
types and errors are its own; the arrays then take the way of every jconv convolution.

>>> import jax.numpy as jnp, jconv
>>> jconv.lax.conv(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 2)), (2,), "VALID")
Array([[[2., 2.]]], dtype=float32)
"""

from jax.lax import (
    ConvDimensionNumbers,
    ConvGeneralDilatedDimensionNumbers,
    conv_dimension_numbers,
    conv_general_dilated_p,
    conv_general_permutations,
    conv_general_shape_tuple,
    conv_shape_tuple,
    conv_transpose_shape_tuple,
)

from jconv.lax.general import (
    conv,
    conv_general_dilated,
    conv_general_dilated_local,
    conv_general_dilated_patches,
    conv_transpose,
    conv_with_general_padding,
)

__all__ = [
    "conv", "conv_dimension_numbers", "conv_general_dilated", "conv_general_dilated_local",
    "conv_general_dilated_p", "conv_general_dilated_patches", "conv_general_permutations",
    "conv_general_shape_tuple", "conv_shape_tuple", "conv_transpose", "conv_transpose_shape_tuple",
    "conv_with_general_padding", "ConvDimensionNumbers", "ConvGeneralDilatedDimensionNumbers",
]  # fmt: skip
