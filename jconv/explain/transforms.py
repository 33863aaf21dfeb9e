"""The matrices of Winograd's F(2×2, 3×3), and an example for where the page's own does not suit."""

from __future__ import annotations

from typing import Any

from jconv.explain.kernels import NAMED
from jconv.explain.lesson import EXAMPLE

BT = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
G = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
AT = [[1, 1, 1, 0], [0, 1, -1, -1]]


def winograd() -> dict[str, Any]:
    """Bᵀ, G and Aᵀ of y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A (Lavin & Gray, 2016)."""
    return {"BT": BT, "G": G, "AT": AT, "example": {"x": EXAMPLE, "w": NAMED["sobel-x"]}}
