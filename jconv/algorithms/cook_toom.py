"""F(m, r): m outputs of an r-tap correlation from n = m + r − 1 products, derived in exact fractions.

    y[i] = Σ_k d[i+k] w[k]   (i < m, k < r)     is     y = A ((G w) ⊙ (B d))

with A (m, n), G (n, r), B (n, n).  **Derivation.**  A product of two polynomials, m and r
coefficients long, has n coefficients, so it is known from its values at n points, ∞ among them (the
value at ∞ is the leading coefficient): evaluate both, multiply n numbers, interpolate.  Evaluation is
a Vandermonde matrix with a last row (0 … 0 1), interpolation the inverse of one.  A correlation is the
transpose of that polynomial product in one operand, and transposing reverses the three matrices:

    A = V_mᵀ        G = D⁻¹ V_r        B = D V_n⁻ᵀ        D = diag(Π_{j≠i} (a_i − a_j)), 1 at ∞

D could be any diagonal; this one makes row i of B the coefficients of Π_{j≠i} (x − a_j) and the last
row those of Π_j (x − a_j), free of division.  Nested once per dimension: F(m×m, r×r) = n² products.

**Which points.**  Any n − 1 distinct ones are exact in fractions; in floats their errors differ.  If
d and w are independent noise, the products err by u·‖G_p‖·‖B_p‖, and the error of y against that of
the direct sum (√r·u) is

    amplification(A, G, B)² = mean_i Σ_p A[i,p]² ‖G_p‖² ‖B_p‖² / r           per dimension

which the measured ratio exceeded by at most a third in the seventeen (m, r), m > 1, that were tried.
It is least near points spread evenly over the projective line, tan(π j / n), ∞ being one of them: no point
is then special, and an even number of finite points does without 0.  POINTS holds the best multiples of 1/8
near those (powers of eighths are exact in float32): F(4×4, 3×3) then errs half as much as with 0, ±1, ±2.

Sources: Cook, "On the minimum computation time of functions", 1966; Toom, 1963; Winograd, "Arithmetic
complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional neural networks",
2016; Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2020.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

Matrix = tuple[tuple[Fraction, ...], ...]

# Half of the finite points for n points in all, ∞ included: each stands for itself and its negative,
# and 0 joins where n − 1 is odd.  Least amplification of F(n − 2, 3) over all multiples of 1/8.
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
    half = [Fraction(value) for value in POINTS.get(n, ())] or _spread(n)
    zero = [Fraction(0)] * ((n - 1) % 2)
    return tuple(zero + [sign * value for value in half for sign in (1, -1)])


def _spread(n: int) -> list[Fraction]:
    """The positive ones of tan(π j / n), n ≥ 10, as fractions that stay distinct."""
    angles = [math.pi / 2 - math.pi * j / n for j in range(1, (n + 1) // 2)]
    return [Fraction(math.tan(angle)).limit_denominator(4 * n) for angle in angles]


@functools.cache
def matrices(m: int, r: int, points: tuple[Fraction | int | str, ...] | None = None) -> Bilinear:
    """F(m, r) from `points`, m + r − 2 distinct fractions; ∞ is always one more.

    >>> for row in matrices(2, 3).B: print(*row)
    1 0 -1 0
    0 1 1 0
    0 -1 1 0
    0 -1 0 1

    Raises:
      ValueError: the number of points is wrong, or two of them are equal.
    """
    n = m + r - 1
    finite = tuple(Fraction(point) for point in (default_points(n) if points is None else points))
    if len(finite) != n - 1 or len(set(finite)) != n - 1:
        raise ValueError(f"`points`: F({m}, {r}) takes {n - 1} distinct ones, got {list(map(str, finite))}")
    others = [[b for b in finite if b != a] for a in finite]
    pairs = zip(finite, others, strict=True)
    scale = [math.prod((a - b for b in rest), start=Fraction(1)) for a, rest in pairs]
    A = [*_powers(finite, m), _unit(m)]
    G = [*([v / f for v in row] for row, f in zip(_powers(finite, r), scale, strict=True)), _unit(r)]
    B = [_with_roots(rest, n) for rest in [*others, list(finite)]]
    return _signed(Bilinear(m, r, tuple(zip(*A, strict=True)), tuple(map(tuple, G)), tuple(map(tuple, B))))


def _powers(points: Sequence[Fraction], count: int) -> list[list[Fraction]]:
    """Vandermonde: a⁰ … a^(count−1) per point."""
    return [[a**k for k in range(count)] for a in points]


def _unit(count: int) -> list[Fraction]:
    """Evaluation at ∞: the leading coefficient."""
    return [Fraction(int(k == count - 1)) for k in range(count)]


def _with_roots(roots: Sequence[Fraction], length: int) -> list[Fraction]:
    """Coefficients of Π (x − root), lowest first, padded to `length`."""
    poly = [Fraction(1)]
    for root in roots:
        shifted = zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)
        poly = [high - root * low for high, low in shifted]
    return poly + [Fraction(0)] * (length - len(poly))


def _signed(f: Bilinear) -> Bilinear:
    """The same with the first entry of every row of G positive, which reads better: signs move to B."""
    signs = [1 if next(v for v in row if v) > 0 else -1 for row in f.G]
    flip = [tuple(tuple(s * v for v in row) for s, row in zip(signs, m, strict=True)) for m in (f.G, f.B)]
    return dataclasses.replace(f, G=flip[0], B=flip[1])


def is_exact(f: Bilinear) -> bool:
    """Whether the three matrices are a correlation: Σ_p A[i,p] G[p,k] B[p,t] = [t = i + k], exactly.

    >>> is_exact(matrices(4, 3)), is_exact(matrices(3, 5, (0, 1, -1, 2, -2, "1/3")))
    (True, True)
    """
    return all(
        sum(f.A[i][p] * f.G[p][k] * f.B[p][t] for p in range(f.n)) == (t == i + k)
        for i, k, t in itertools.product(range(f.m), range(f.r), range(f.n))
    )


def amplification(f: Bilinear) -> float:
    """RMS error of F(m, r) over that of the direct sum, for independent noise; see the module.

    Errors of nested dimensions multiply.

    >>> round(amplification(matrices(2, 3)), 1), round(amplification(matrices(4, 3)), 1)
    (1.3, 2.2)
    """
    weight = [_square(g) * _square(b) for g, b in zip(f.G, f.B, strict=True)]
    total = sum(float(a) ** 2 * q for row in f.A for a, q in zip(row, weight, strict=True))
    return math.sqrt(total / (f.m * f.r))


def _square(row: Sequence[Fraction]) -> float:
    return math.fsum(float(v) ** 2 for v in row)


# -- the algorithm on plain numbers, to read and to count ------------------------------------------

Multiply = Callable[[Any, Any], Any]
Grid = dict[tuple[int, ...], Any]


def transform(matrix: Matrix, grid: Grid, axis: int) -> Grid:
    """`matrix` applied along one axis of a grid of numbers: multiplications by constants only."""
    out: Grid = {}
    for at, value in grid.items():
        for row, coefficients in enumerate(matrix):
            if coefficients[at[axis]]:
                key = (*at[:axis], row, *at[axis + 1 :])
                out[key] = out.get(key, 0) + coefficients[at[axis]] * value
    return out


def correlate(d: Grid, w: Grid, tiles: Sequence[Bilinear], multiply: Multiply = operator.mul) -> Grid:
    """The correlation of d with w over one tile; every product of the two is computed by `multiply`.

    >>> d, w = {(i,): i + 1 for i in range(4)}, {(k,): 10**k for k in range(3)}
    >>> [int(v) for v in correlate(d, w, [matrices(2, 3)]).values()]
    [321, 432]
    """
    for axis, f in enumerate(tiles):
        d, w = transform(f.B, d, axis), transform(f.G, w, axis)
    products = {at: multiply(w.get(at, 0), d.get(at, 0)) for at in _every(f.n for f in tiles)}
    for axis, f in enumerate(tiles):
        products = transform(f.A, products, axis)
    return {at: products.get(at, 0) for at in _every(f.m for f in tiles)}


def multiplications(tiles: Sequence[Bilinear]) -> tuple[int, int]:
    """Numbers of products of data with kernel for one tile, by F(m, r) and by the direct sum, as counted.

    >>> multiplications([matrices(2, 3), matrices(2, 3)])
    (16, 36)
    """
    count = 0

    def counted(a: Any, b: Any) -> Any:
        nonlocal count
        count += 1
        return a * b

    d = {at: sum(at) + 1 for at in _every(f.n for f in tiles)}
    w = {at: math.prod(at) + 1 for at in _every(f.r for f in tiles)}
    fast, ours = correlate(d, w, tiles, counted), count
    slow = {out: sum(counted(d[tuple(map(operator.add, out, tap))], w[tap]) for tap in w) for out in fast}
    assert fast == slow, "F(m, r) is not a correlation"
    return ours, count - ours


def _every(sizes: Any) -> itertools.product:
    return itertools.product(*map(range, sizes))
