"""How far two correct results may lie apart: the one function every comparison takes its bound from.

A sum of K products with unit roundoff u has error at most about K·u·Σ|a·b|; with rounding errors of
random sign it grows like √K (Higham & Mary, "A new approach to probabilistic rounding error
analysis", 2019).  Results here are compared relative to the largest magnitude of the reference, so

    rtol = safety · u_accumulate · √K  +  2 · u_result  (one rounding each, at the end)

times the algorithm's own amplification (1 for the GEMM family; measured for transforms).
"""

import math

import ml_dtypes
import numpy as np

SAFETY = 8.0  # both sides err, and the largest of ~1e4 normal errors lies 4 deviations out: 2 · 4


def unit_roundoff(dtype: str) -> float:
    """Half the gap above 1; 0 for integers, whose arithmetic is exact."""
    if np.dtype(dtype).kind in "iub":
        return 0.0
    return float(ml_dtypes.finfo(np.dtype(dtype)).eps) / 2


def tolerance(dtype: str, reduction: int, amplification: float = 1.0) -> float:
    """Bound on max|a − b| / max|b| for results of `dtype` that sum `reduction` products.

    Args:
      dtype: of the result; halves are taken to accumulate in float32.
      reduction: number of products summed into one output.
      amplification: error of the algorithm relative to the direct sum's.

    >>> tolerance("int32", 100)
    0.0
    >>> 1e-6 < tolerance("float32", 27) < 1e-5
    True
    """
    kind = np.dtype(dtype)
    accumulate = dtype if kind.kind in "iubc" or kind.itemsize >= 4 else "float32"
    rounding = SAFETY * amplification * unit_roundoff(accumulate) * math.sqrt(max(reduction, 1))
    return rounding + 2 * unit_roundoff(dtype)
