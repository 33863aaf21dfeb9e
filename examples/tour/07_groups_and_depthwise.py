"""7. Groups and depthwise: fewer products, but not always that much less time."""

import itertools

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
print(
    f"\ndepthwise has {fewer:.0f} times fewer multiply-adds than dense; jconv ran {faster:.1f} times as fast"
)
print(f"for every byte it has to move it does {depthwise.macs / depthwise.bytes:.1f} of them, "
      f"dense {dense.macs / dense.bytes:.0f}")  # fmt: skip
slower = [
    f"{who} with {more} groups instead of {less}"
    for who in ("jconv", "lax")
    for less, more in itertools.pairwise(GROUPS)
    if times.ratio((who, more), (who, less)) > 1.1
]
print(f"fewer multiply-adds and yet slower: {'; '.join(slower) or 'nowhere here'}\n")

# A larger layer, its parameters and its products, counted; then raced, where the image is small.
wide, side = 512, 7
full = layer(3, 1).replace(in_channels=wide, out_channels=wide, spatial=(side, side))
deep, point = full.replace(groups=wide), full.replace(kernel=(1, 1), padding=((0, 0), (0, 0)))
both = deep.parameters + point.parameters
print(f"3×3, {wide} → {wide}: {full.parameters:,} parameters; separable {deep.parameters:,} + "
      f"{point.parameters:,} = {both:,}, {full.parameters / both:.2f} times fewer")  # fmt: skip
products = deep.macs + point.macs
fewer = full.macs / products
print(f"at {side}×{side} {full.macs:,} multiply-adds; separable {products:,}, {fewer:.2f} times fewer")

x, w_full, w_deep, w_point = (
    jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for shape in (full.x_shape, full.w_shape, deep.w_shape, point.w_shape)
)
convs = {
    "jconv": lambda x, w, groups=1: jconv.conv2d(x, w, padding="same", groups=groups, layout="NHWC"),
    "lax": lambda x, w, groups=1: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=LAST, feature_group_count=groups
    ),
}
ways = {}
for who, conv in convs.items():
    one = jax.jit(lambda x, conv=conv: conv(x, w_full))
    two = jax.jit(lambda x, conv=conv: conv(conv(x, w_deep, wide), w_point))
    ways |= {(who, "full"): lambda one=one: one(x), (who, "separable"): lambda two=two: two(x)}
times = race(ways, rounds=5)
for who in convs:
    gain = times.ratio((who, "full"), (who, "separable"))
    both_ms = (f"{1e3 * times.median((who, what)):.2f} ms" for what in ("full", "separable"))
    verdict = "slower, for all its fewer products" if gain < 1 else f"{gain:.1f} times as fast"
    print(f"  {who:6s} full {next(both_ms)}, separable {next(both_ms)}: {verdict}")
print(
    f"separable is slower wherever one of its multiply-adds takes more than {fewer:.1f} times as long: where"
)
print("the depthwise routine is poor or waits for memory, or where starting two layers costs more than one")
