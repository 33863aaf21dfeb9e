"""8. Winograd by hand: 36 multiplications become 16, and they are counted.

A 3×3 kernel on a 4×4 tile gives 2×2 outputs.  Directly each takes 9 products.  F(2×2, 3×3) transforms
tile and kernel by additions and halvings, multiplies cell by cell, and transforms back:

    y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A                                      Lavin & Gray, 2016
"""

import importlib
import importlib.util

import numpy as np

import jconv
from jconv import textbook
from jconv.algorithms import winograd as by_tiles
from jconv.textbook.example import INPUT, SOBEL_X

BT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
AT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


class Counted:
    """A number of the data.  Data times data is counted; data times a fixed ±1 or ½ is not."""

    products = 0

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return Counted(self.value + (other.value if isinstance(other, Counted) else other))

    def __mul__(self, other):
        if isinstance(other, Counted):
            Counted.products += 1
            return Counted(self.value * other.value)
        assert abs(other) in (0, 0.5, 1), "only additions and halvings are free"
        return Counted(self.value * other)

    __radd__, __rmul__ = __add__, __mul__


def counted(array):
    """The array with every number watched."""
    return np.vectorize(Counted, otypes=[object])(array)


def count(f, *arrays):
    """What f returns, and how many products of data it took."""
    Counted.products = 0
    result = f(*map(counted, arrays))
    return np.vectorize(lambda number: number.value)(result), Counted.products


def direct(x, w):
    """Four outputs, nine products each."""
    return np.array([[(x[p : p + 3, q : q + 3] * w).sum() for q in range(2)] for p in range(2)])


def winograd(x, w):
    """Four outputs from sixteen products."""
    return AT @ ((G @ w @ G.T) * (BT @ x @ BT.T)) @ AT.T


tile = INPUT[:4, :4]
y, plain = count(direct, tile, SOBEL_X)
z, fast = count(winograd, tile, SOBEL_X)
assert (y == z).all()
print(f"direct    {plain} products of data\n{y}\nwinograd  {fast} products of data\n{z}")
print(f"the same four numbers for {plain / fast:.2f} times fewer products")
if importlib.util.find_spec("torch"):
    torch = importlib.import_module("torch")
    operands = (torch.tensor(np.float32(array))[None, None] for array in (tile, SOBEL_X))
    assert np.allclose(z.astype(float), torch.nn.functional.conv2d(*operands)[0, 0].numpy(), atol=1e-5)
    print("and F.conv2d of PyTorch gives the same four\n")
else:
    print("PyTorch is not installed: not compared with F.conv2d\n")

# Larger tiles save more and cost accuracy; on a real layer jconv takes them.
rng = np.random.default_rng(0)
x, w = rng.standard_normal((2, 64, 28, 28)), rng.standard_normal((64, 64, 3, 3))
exact = textbook.conv2d_matmul(x, w, padding=1)
print("64 → 64 channels, 28×28, in float32; largest error against float64, relative to the largest output")
tiles = {f"F({m}, 3)": by_tiles.winograd(by_tiles.fixed(m)) for m in (2, 4)}
for name, algorithm in {"im2col": "im2col", **tiles}.items():
    y = jconv.conv2d(x.astype(np.float32), w.astype(np.float32), padding=1, algorithm=algorithm)
    print(f"  {name:7s} {abs(y - exact).max() / abs(exact).max():.1e}")

try:
    jconv.conv2d(x.astype(np.float32), w.astype(np.float32), stride=2, algorithm="winograd")
except ValueError as refusal:
    print(f"\nit is for some shapes only, and says so:\n  {refusal}")
