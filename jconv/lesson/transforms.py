"""The matrices of Winograd's F(2×2, 3×3), and an example for where the page's own does not suit."""

from typing import Any

from jconv.algorithms.cook_toom import Matrix, matrices
from jconv.lesson.kernels import NAMED
from jconv.textbook.example import INPUT


def winograd() -> dict[str, Any]:
    """Aᵀ, G and Bᵀ of y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A, as jconv derives them.

    >>> winograd()["BT"]
    [[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, -1.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0]]
    """
    f = matrices(2, 3)
    example = {"x": INPUT.tolist(), "w": NAMED["sobel-x"]}
    return {"AT": floats(f.A), "G": floats(f.G), "BT": floats(f.B), "example": example}


def floats(matrix: Matrix) -> list[list[float]]:
    """Fractions as the floats they are exactly."""
    return [list(map(float, row)) for row in matrix]
