"""3. einsum, or reshape and @?  The same contraction written three times, compared, timed, and with a bias.

    einsum, as it stands    runs the loop that its letters spell, reading patches from the view
    einsum, optimize=True   looks for a matrix product among the letters first
    reshape and @           writes that matrix product out by hand
"""  # fmt: skip

import importlib
import importlib.util

import numpy as np

from jconv import textbook
from jconv.bench.comparison import conditions
from jconv.bench.timing import race
from jconv.testing import tolerance

rng = np.random.default_rng(0)
LAYERS = {
    "few channels, 3×3": ((1, 3, 32, 32), (16, 3, 3, 3)),
    "many channels, 3×3": ((1, 64, 14, 14), (64, 64, 3, 3)),
    "many channels, 1×1": ((1, 128, 14, 14), (128, 128, 1, 1)),
    "one channel, 11×11": ((1, 1, 48, 48), (8, 1, 11, 11)),
}


def as_it_stands(x, w):
    """The letters' own loop."""
    return np.einsum("ncpqrs,ocrs->nopq", textbook.patch_view(x, w.shape[2:]), w)


WAYS = {"einsum": as_it_stands, "optimized": textbook.conv2d_einsum, "@": textbook.conv2d_matmul}

print(conditions(), "\n")
ahead, furthest, warnings = [], 0.0, []
print(f"{'':20s}" + "".join(f"{way:>14s}" for way in WAYS))
for name, (x_shape, w_shape) in LAYERS.items():
    # Whole numbers leave nothing to round: all three must be identical, whatever the order of the sums.
    x, w = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (x_shape, w_shape))
    exact = [way(x, w) for way in WAYS.values()]
    assert all((y == exact[0]).all() for y in exact)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (x_shape, w_shape))
    results = [way(x, w) for way in WAYS.values()]
    furthest = max([furthest, *(abs(y - results[-1]).max() / abs(results[-1]).max() for y in results)])
    assert furthest < tolerance("float32", np.prod(w_shape[1:]))
    times = race({way: lambda f=f, x=x, w=w: f(x, w) for way, f in WAYS.items()}, rounds=5)
    warnings += filter(None, [times.unsteady()])
    print(f"{name:20s}" + "".join(f"{1e3 * times.median(way):11.2f} ms" for way in WAYS))
    ahead.append((times.ratio("einsum", "@"), times.ratio("optimized", "@")))

print(
    f"\nthe numbers are identical in all {len(LAYERS)} layers, bit for bit, where nothing has to be rounded;"
)
print(f"random float32 differ by at most {furthest:.0e} of the largest, by the order of the additions")
plain, optimized = zip(*ahead, strict=True)
print("\ntime of einsum over time of @, least and most of these layers")
print(f"  as it stands   {min(plain):5.1f} to {max(plain):5.1f}")
print(f"  optimize=True  {min(optimized):5.1f} to {max(optimized):5.1f}")
for warning in warnings[:1]:
    print(warning)
if max(optimized) < 1.5 and min(optimized) > 1 / 1.5:
    print("optimize=True found the same product everywhere, so take the one that reads better")
else:
    print("they are not alike everywhere here: keep both, and a test that compares them")

# A bias is one number per output channel, added at every position.
shapes = (1, 64, 64, 64), (128, 64, 5, 5), (128,)
x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
y = textbook.conv2d_matmul(x, w, b)
assert np.allclose(y, textbook.conv2d_matmul(x, w) + b[:, None, None])
print(f"\n64 → 128 channels, 5×5, with a bias: x {x.shape}, w {w.shape}, b {b.shape} give y {y.shape}")
if importlib.util.find_spec("torch"):
    torch = importlib.import_module("torch")
    theirs = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w)), bias=torch.from_numpy(b)).numpy()
    off = abs(y - theirs).max() / abs(theirs).max()
    assert off < tolerance("float32", np.prod(w.shape[1:]))
    print(f"F.conv2d(x, w, bias=b) of PyTorch gives the same, to {off:.0e} of the largest")
else:
    print("PyTorch is not installed: not compared with F.conv2d(x, w, bias=b)")
