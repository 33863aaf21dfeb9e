"""The zoo: every algorithm jconv has, by name, in the order they are explained."""

from jconv.algorithms.im2col import IM2COL
from jconv.algorithms.shift import SHIFT
from jconv.algorithms.xla import XLA

ALGORITHMS = {algorithm.name: algorithm for algorithm in (IM2COL, SHIFT, XLA)}

__all__ = ["ALGORITHMS", "IM2COL", "SHIFT", "XLA"]
