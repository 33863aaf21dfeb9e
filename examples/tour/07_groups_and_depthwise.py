"""7. Groups and depthwise: fewer products, but not always that much less time."""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.timing import race

CHANNELS, SIZE = 256, 28
rng = np.random.default_rng(0)


def layer(kernel, groups):
    """A layer of 256 channels in and out."""
    return jconv.ConvSpec.of(
        spatial=(SIZE, SIZE), in_channels=CHANNELS, out_channels=CHANNELS, kernel=(kernel, kernel),
        padding=((kernel // 2,) * 2,) * 2, groups=groups,
    )  # fmt: skip


# Who feeds whom: the Jacobian of one pixel.
w = jnp.ones((4, 2, 1, 1))
feeds = jax.jacobian(lambda x: jconv.conv2d(x, w, groups=2))(jnp.ones((4, 1, 1))).reshape(4, 4)
print("4 channels in 2 groups: rows are outputs, columns the inputs that feed them")
print(np.asarray(feeds, int), "\n")

dense, depthwise, pointwise = layer(3, 1), layer(3, CHANNELS), layer(1, 1)
separable = depthwise.parameters + pointwise.parameters
print(f"dense 3×3, {CHANNELS} → {CHANNELS}: {dense.parameters:,} kernel values, {dense.macs:,} multiply-adds")
print(f"depthwise 3×3 ({depthwise.parameters:,}), then 1×1 ({pointwise.parameters:,}): {separable:,} values, "
      f"{dense.parameters / separable:.1f} times fewer\n")  # fmt: skip

# One input, convolved with ever more groups.
x = jnp.asarray(rng.standard_normal((1, SIZE, SIZE, CHANNELS)), jnp.float32)
LAST = ("NHWC", "HWIO", "NHWC")
GROUPS = (1, 8, 32, CHANNELS)
ways = {}
for groups in GROUPS:
    w = jnp.asarray(rng.standard_normal(layer(3, groups).w_shape), jnp.float32)
    options = dict(padding=1, groups=groups, layout="NHWC")
    ways["jconv", groups] = lambda w=w, options=options: jconv.conv2d(x, w, **options)
    ways["lax", groups] = lambda w=w, groups=groups: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=LAST, feature_group_count=groups
    )
times = race(ways, rounds=5)

print(f"{'groups':>8s} {'multiply-adds':>14s} {'per byte':>9s} {'jconv':>11s} {'lax':>11s}")
for groups in GROUPS:
    spec = layer(3, groups)
    mine, theirs = (1e3 * times.median((who, groups)) for who in ("jconv", "lax"))
    print(f"{groups:8d} {spec.macs:14,} {spec.macs / spec.bytes:9.1f} {mine:8.2f} ms {theirs:8.2f} ms")

fewer = dense.macs / depthwise.macs
faster = times.ratio(("jconv", 1), ("jconv", CHANNELS))
print(f"\ndepthwise has {fewer:.0f} times fewer multiply-adds than dense and ran {faster:.0f} times as fast:")
print(f"for every byte it has to move it does {depthwise.macs / depthwise.bytes:.1f} of them, "
      f"dense {dense.macs / dense.bytes:.0f}: what it waits for is memory.")  # fmt: skip
