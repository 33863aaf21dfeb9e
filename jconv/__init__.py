"""jconv: convolution in JAX, correct, fast and plain to see."""

from jconv.algorithm import Algorithm
from jconv.conv import conv1d, conv2d, conv3d
from jconv.gradients import grad_input, grad_kernel
from jconv.lax import conv_general_dilated
from jconv.spec import ConvSpec

__version__ = "0.1.0"

__all__ = ["Algorithm", "ConvSpec", "conv1d", "conv2d", "conv3d", "conv_general_dilated", "grad_input", "grad_kernel"]
