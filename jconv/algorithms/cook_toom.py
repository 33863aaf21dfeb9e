"""F(m, r): m outputs of an r-tap correlation from n = m + r − 1 products, derived in exact fractions.

    y[i] = Σ_k d[i+k] w[k]   (i < m, k < r)     is     y = A ((G w) ⊙ (B d))

with A (m, n), G (n, r), B (n, n).  A product of two polynomials, m and r coefficients long, has n
coefficients, so it is known from its values at n points, ∞ among them (the value at ∞ is the leading
coefficient): evaluate both, multiply n numbers, interpolate.  Evaluation is a Vandermonde matrix with a last
row (0 … 0 1), interpolation the inverse of one.  A correlation is the transpose of that polynomial product in
one operand, and transposing reverses the three matrices:

    A = V_mᵀ        G = D⁻¹ V_r        B = D V_n⁻ᵀ        D = diag(Π_{j≠i} (a_i − a_j)), 1 at ∞

D could be any diagonal; this one makes row i of B the coefficients of Π_{j≠i} (x − a_j) and the last row
those of Π_j (x − a_j), free of division.  Nested once per dimension: F(m×m, r×r) = n² products.

Sources: Cook, "On the minimum computation time of functions", 1966; Toom, 1963; Winograd, "Arithmetic
complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional neural networks",
2016; Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2020.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Matrix = tuple[tuple[Fraction, ...], ...]

# Any n − 1 distinct points are exact in fractions; in floats their errors differ.  They are least near points
# spread evenly over the projective line, tan(π j / n), ∞ being one of them: no point is then special, and an
# even number of finite points does without 0.  Here is half of the finite points for n points in all, ∞
# included: each stands for itself and its negative, and 0 joins where n − 1 is odd.  They are the multiples
# of 1/8 (whose powers are exact in float32) of least amplification, half of what 0, ±1, ±2 have.
POINTS: dict[int, tuple[str, ...]] = {
    3: ("5/8",),
    4: ("1",),
    5: ("3/8", "5/4"),
    6: ("5/8", "3/2"),
    7: ("1/4", "7/8", "7/4"),
    8: ("1/2", "1", "2"),
    9: ("1/4", "5/8", "5/4", "9/4"),
}


@dataclasses.dataclass(frozen=True)
class Bilinear:
    """The three matrices of F(m, r) in fractions: y = A ((G w) ⊙ (B d))."""

    m: int
    r: int
    A: Matrix
    G: Matrix
    B: Matrix

    @property
    def n(self) -> int:
        """Products per tile, and the length of a tile of d."""
        return self.m + self.r - 1


def default_points(n: int) -> tuple[Fraction, ...]:
    """The finite points used for n points in all.

    >>> [str(point) for point in default_points(6)]
    ['0', '5/8', '-5/8', '3/2', '-3/2']
    """
    angles = [math.pi / 2 - math.pi * j / n for j in range(1, (n + 1) // 2)]
    spread = [Fraction(math.tan(angle)).limit_denominator(4 * n) for angle in angles]  # where n ≥ 10
    half = [Fraction(value) for value in POINTS.get(n, spread)]
    return (*[Fraction(0)] * ((n - 1) % 2), *(sign * value for value in half for sign in (1, -1)))


@functools.cache
def matrices(m: int, r: int) -> Bilinear:
    """F(m, r) from the points for m + r − 1 in all.

    >>> for row in matrices(2, 3).B: print(*row)
    1 0 -1 0
    0 1 1 0
    0 -1 1 0
    0 -1 0 1
    """
    n = m + r - 1
    finite = default_points(n)
    others = [[b for b in finite if b != a] for a in finite]
    pairs = zip(finite, others, strict=True)
    scale = [*(math.prod((a - b for b in rest), start=Fraction(1)) for a, rest in pairs), Fraction(1)]

    def evaluated(count: int) -> list[list[Fraction]]:
        """The Vandermonde matrix of the points, a⁰ … a^(count−1); at ∞, the leading coefficient."""
        infinite = [Fraction(k == count - 1) for k in range(count)]
        return [*([a**k for k in range(count)] for a in finite), infinite]

    G = [[v / f for v in row] for row, f in zip(evaluated(r), scale, strict=True)]
    B = [_with_roots(rest, n) for rest in [*others, list(finite)]]
    # It reads better if the first entry of every row of G is positive: signs move to B.
    signs = [1 if next(v for v in row if v) > 0 else -1 for row in G]
    G, B = ([[sign * v for v in row] for sign, row in zip(signs, rows, strict=True)] for rows in (G, B))
    return Bilinear(m, r, tuple(zip(*evaluated(m), strict=True)), tuple(map(tuple, G)), tuple(map(tuple, B)))


def _with_roots(roots: Sequence[Fraction], length: int) -> list[Fraction]:
    """Coefficients of Π (x − root), lowest first, padded to `length`."""
    poly = [Fraction(1)]
    for root in roots:
        shifted = zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)
        poly = [high - root * low for high, low in shifted]
    return poly + [Fraction(0)] * (length - len(poly))


def amplification(f: Bilinear) -> float:
    """RMS error of F(m, r) over that of the direct sum; the errors of nested dimensions multiply.

    If d and w are independent noise, the products err by u·‖G_p‖·‖B_p‖, and y, against the direct sum's √r·u,
    by

        amplification² = mean_i Σ_p A[i,p]² ‖G_p‖² ‖B_p‖² / r

    which the measured ratio exceeded by at most a third in the seventeen (m, r), m > 1, that were tried.

    >>> round(amplification(matrices(2, 3)), 1), round(amplification(matrices(4, 3)), 1)
    (1.3, 2.2)
    """
    A, G, B = (np.array(matrix, float) for matrix in (f.A, f.G, f.B))
    return math.sqrt(np.sum(A**2 @ ((G**2).sum(1) * (B**2).sum(1))) / (f.m * f.r))
