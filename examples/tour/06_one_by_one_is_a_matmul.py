"""6. A 1×1 convolution is a matrix product: over the channels, the same for every pixel."""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.timing import race

rng = np.random.default_rng(0)

# pixels (n·h·w, c) times kernel (c, o)
x = jnp.asarray(rng.integers(-3, 4, (2, 5, 6, 8)), jnp.float32)  # NHWC
w = jnp.asarray(rng.integers(-3, 4, (1, 1, 8, 3)), jnp.float32)  # HWIO
y = jconv.conv2d(x, w, layout="NHWC")
assert (y == (x.reshape(-1, 8) @ w[0, 0]).reshape(2, 5, 6, 3)).all()
print(f"x {x.shape} as {x.size // 8} rows of 8, times w {w.shape} as (8, 3): equal to conv2d, bit for bit")

# It is not an elementwise product, unless there is one channel in and one out.
one = jconv.conv2d(x[..., :1], w[:, :, :1, :1], layout="NHWC")
assert (one == x[..., :1] * w[0, 0, 0, 0]).all()
print(f"with one channel in and out it is x times a number; here each output takes {w.shape[2]} products")

# What it costs: no neighbours, so every input number is read once, for all outputs.
for kernel in (1, 3):
    spec = jconv.ConvSpec.of(
        batch=4, spatial=(28, 28), in_channels=256, out_channels=64, kernel=(kernel, kernel),
        padding=((kernel // 2,) * 2,) * 2,
    )  # fmt: skip
    print(f"{kernel}×{kernel}, 256 → 64: {spec.parameters:7,} kernel values, {spec.macs:11,} multiply-adds")

x = jnp.asarray(rng.standard_normal((4, 28, 28, 256)), jnp.float32)
w = jnp.asarray(rng.standard_normal((1, 1, 256, 64)), jnp.float32)
product = jax.jit(lambda x, w: x.reshape(-1, 256) @ w[0, 0])
ways = {
    "jconv.conv2d, 1×1": lambda: jconv.conv2d(x, w, layout="NHWC"),
    "x.reshape(−1, 256) @ w": lambda: product(x, w),
}
times = race(ways)
print()
for way in ways:
    print(f"  {way:24s} {1e3 * times.median(way):6.3f} ms")
print(f"  ratio {times.ratio(*ways):.2f}")
