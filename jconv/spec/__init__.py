"""What is to be computed: a convolution in integers, its gradients, its layout and its error. No arrays."""

from jconv.spec.checks import Ints
from jconv.spec.convspec import ROLES, ConvSpec, Role, extent, itemsize, windows

__all__ = ["ConvSpec", "extent", "Ints", "itemsize", "Role", "ROLES", "windows"]
