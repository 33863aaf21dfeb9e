"""3. einsum, or reshape and @?  The same contraction written three times, timed.

    einsum, as it stands    runs the loop that its letters spell, reading patches from the view
    einsum, optimize=True   looks for a matrix product among the letters first
    reshape and @           writes that matrix product out by hand
"""  # fmt: skip

import numpy as np

from jconv import textbook
from jconv.bench.timing import race

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

ahead = []
print(f"{'':20s}" + "".join(f"{way:>14s}" for way in WAYS))
for name, (x_shape, w_shape) in LAYERS.items():
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (x_shape, w_shape))
    results = [way(x, w) for way in WAYS.values()]
    assert all(np.allclose(y, results[-1], rtol=0, atol=1e-4 * abs(results[-1]).max()) for y in results)
    times = race({way: lambda f=f, x=x, w=w: f(x, w) for way, f in WAYS.items()}, rounds=5)
    print(f"{name:20s}" + "".join(f"{1e3 * times.median(way):11.2f} ms" for way in WAYS))
    ahead.append((times.ratio("einsum", "@"), times.ratio("optimized", "@")))

plain, optimized = zip(*ahead, strict=True)
print("\ntime of einsum over time of @, least and most of these layers")
print(f"  as it stands   {min(plain):5.1f} to {max(plain):5.1f}")
print(f"  optimize=True  {min(optimized):5.1f} to {max(optimized):5.1f}   (it finds the same product)")
print("einsum is the one to read; where @ measures better, keep both and a test that compares them")
