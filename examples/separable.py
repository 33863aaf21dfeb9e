"""Depthwise-separable against full convolution: parameters, FLOPs, and the time they really take.

A full 3×3 layer mixes space and channels at once.  A separable one (MobileNet, Xception) does space
first, one 3×3 kernel a channel, and then channels, by a 1×1.  That is 1/o + 1/9 of the products.  How much
of it arrives as time depends on what the machine waits for: multiply-adds, or memory.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.job import busy, machine
from jconv.bench.timing import race

SIZE = ((64, 56), (256, 28), (512, 7))  # channels, side of the image: early, middle and late in a network


def layers(channels, side):
    """The full 3×3, the depthwise 3×3 and the pointwise 1×1 of so many channels in and out."""
    full = jconv.ConvSpec.of(
        batch=1, spatial=(side, side), kernel=(3, 3), in_channels=channels, out_channels=channels,
        padding=((1, 1), (1, 1)),
    )  # fmt: skip
    return full, full.replace(groups=channels), full.replace(kernel=(1, 1), padding=((0, 0), (0, 0)))


def times(channels, side):
    """Seconds of the full layer, of both halves, and of the two in one program."""
    rng = np.random.default_rng(0)
    x, full, deep, point = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((1, side, side, channels), *(spec.w_shape for spec in layers(channels, side)))
    )
    conv = lambda x, w, **knobs: jconv.conv2d(x, w, layout="NHWC", **knobs)  # noqa: E731
    depthwise = lambda x: conv(x, deep, padding=1, groups=channels)  # noqa: E731
    ways = {
        "full": lambda x: conv(x, full, padding=1),
        "depthwise": depthwise,
        "pointwise": lambda x: conv(x, point),
        "separable": lambda x: conv(depthwise(x), point),
    }
    compiled = {name: jax.jit(way).lower(x).compile() for name, way in ways.items()}
    measured = race({name: lambda run=run: run(x) for name, run in compiled.items()}, rounds=5)
    return measured, measured.ratio("full", "separable")


full, deep, point = layers(256, 28)
print("3×3, 256 → 256 channels")
print(f"  full       {full.parameters:8,} parameters")
print(f"  separable  {deep.parameters + point.parameters:8,} parameters: "
      f"{deep.parameters:,} depthwise and {point.parameters:,} pointwise\n")  # fmt: skip

print(machine(), busy() or "", "", sep="\n")
HEADINGS = ("MFLOP: full", "separable", "fewer", "ms: full", "separable", "faster",
            "GFLOP/s: full", "depthwise", "pointwise")  # fmt: skip
print("channels  side", *(f"{heading:>{max(9, len(heading))}}" for heading in HEADINGS))
slower = []
for channels, side in SIZE:
    specs = dict(zip(("full", "depthwise", "pointwise"), layers(channels, side), strict=True))
    flops = {name: spec.flops for name, spec in specs.items()}
    both = flops["depthwise"] + flops["pointwise"]
    measured, faster = times(channels, side)
    rate = {name: flops[name] / measured.median(name) / 1e9 for name in specs}
    numbers = (
        flops["full"] / 1e6, both / 1e6, flops["full"] / both,
        measured.median("full") * 1e3, measured.median("separable") * 1e3, faster, *rate.values(),
    )  # fmt: skip
    columns = (f"{n:{max(9, len(h))}.3g}" for h, n in zip(HEADINGS, numbers, strict=True))
    print(f"{channels:8d}  {side:4d}", *columns)
    slower.append(flops["full"] / both / faster)

per_byte = {name: spec.flops / spec.bytes for name, spec in (("full", full), ("depthwise", deep))}
print(f"""
At the worst, {max(slower):.1f} times less of the saving arrives as time than was saved.  The depthwise half
is the reason: for every byte it moves it has {per_byte["depthwise"]:.0f} FLOP to do,
the full layer {per_byte["full"]:.0f}; it waits for memory while the multipliers idle.
Fewer FLOPs are slower as soon as the rate falls faster than they do; here each against the dense one:
""")

# A grouped kernel of a few channels a group: fewer FLOPs than the full one, and less work per byte.
channels, side = 64, 14
x = jnp.ones((1, side, side, channels), jnp.float32)
full = layers(channels, side)[0]
seconds = {}
for groups in (1, 4, 16):
    spec = full.replace(groups=groups)
    w = jnp.ones(spec.w_shape, jnp.float32)
    choice = {
        name: jax.jit(
            lambda x, w=w, g=groups, a=a: jconv.conv2d(x, w, padding=1, groups=g, layout="NHWC", algorithm=a)
        )
        for name, a in {"jconv": "auto", "lax": "xla"}.items()
    }
    t = race({name: lambda run=run: run(x) for name, run in choice.items()}, rounds=5)
    for name in choice:
        seconds.setdefault(name, []).append(t.median(name))
    print(f"  3×3, {channels} channels in {groups:2d} groups: {spec.flops / 1e6:5.1f} MFLOP,"
          f" {t.median('lax') * 1e3:7.3f} ms by lax, {t.median('jconv') * 1e3:7.3f} ms by jconv")  # fmt: skip
slower = [name for name, (dense, *grouped) in seconds.items() if max(grouped) > 1.1 * dense]
print(
    f"\nfewer FLOPs and yet slower than the dense layer: {' and '.join(slower) or 'neither of the two here'}"
)
