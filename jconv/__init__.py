"""jconv: convolution in JAX, correct, fast and plain to see."""

from jconv import lax
from jconv.algorithms.record import Algorithm
from jconv.api.conv import conv, conv1d, conv2d, conv3d
from jconv.api.conv_transpose import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d
from jconv.api.gradients import grad_input, grad_kernel
from jconv.api.patches import col2im, fold, im2col, unfold
from jconv.lax import conv_general_dilated, conv_general_dilated_patches
from jconv.programs.accelerate import accelerate, accelerated
from jconv.programs.choose import choose
from jconv.programs.explain import explain
from jconv.programs.lowering import install, installed, uninstall
from jconv.programs.tune import tune
from jconv.spec import ConvSpec

__version__ = "0.1.0"

__all__ = [
    "conv", "conv1d", "conv2d", "conv3d",
    "conv_transpose", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "grad_input", "grad_kernel",
    "unfold", "fold", "im2col", "col2im",
    "conv_general_dilated", "conv_general_dilated_patches", "lax",
    "choose", "tune", "accelerate", "accelerated", "explain", "install", "installed", "uninstall",
    "Algorithm", "ConvSpec",
]  # fmt: skip
