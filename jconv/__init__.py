"""jconv: convolution in JAX, correct, fast and plain to see."""

from jconv import lax
from jconv.accelerate import accelerate, accelerated, install, installed, uninstall
from jconv.algorithm import Algorithm
from jconv.ask import choose
from jconv.conv import conv, conv1d, conv2d, conv3d
from jconv.conv_transpose import conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d
from jconv.gradients import grad_input, grad_kernel
from jconv.lax import conv_general_dilated, conv_general_dilated_patches
from jconv.patches import col2im, fold, im2col, unfold
from jconv.spec import ConvSpec
from jconv.table import explain
from jconv.tuning import tune

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
