"""1. From loop to GEMM: the same sum, three times, and what a Python loop costs.

A convolution is defined by a loop: one patch times one kernel for every output number.  Write the
patches out as columns and the loop is a single matrix product.
"""

import math

import numpy as np

import jconv
from jconv import textbook
from jconv.bench.timing import race

# The first layer of ResNet-50, counted and not guessed.
stem = jconv.ConvSpec.of(
    spatial=(224, 224), in_channels=3, out_channels=64, kernel=(7, 7), strides=(2, 2), padding=((3, 3),) * 2
)
numbers = math.prod(stem.y_shape)
patch = stem.taps * stem.c
print(f"ResNet-50's stem: {stem}")
print(f"  {numbers:,} output numbers, each the dot product of a patch of {patch}")
print(f"  {numbers:,} × {patch} = {stem.macs:,} multiply-adds, {stem.flops / 1e9:.2f} GFLOP")
assert numbers * patch == stem.macs

# The same layer on a 32×32 image, with whole numbers: small enough for the loop, and exact.
rng = np.random.default_rng(0)
x = rng.integers(-3, 4, (1, 3, 32, 32)).astype(np.float32)
w = rng.integers(-3, 4, (64, 3, 7, 7)).astype(np.float32)
layer = dict(stride=2, padding=3)
ways = {
    "loop, one output number at a time": lambda: textbook.conv2d_loops(x, w, **layer),
    "im2col by loop, one matrix product": lambda: textbook.conv2d_im2col(x, w, **layer),
    "strided view and matrix product": lambda: textbook.conv2d_matmul(x, w, **layer),
    "jconv.conv2d": lambda: jconv.conv2d(x, w, **layer),
}
slowest, *others = ways
expected = ways[slowest]()
assert all((np.asarray(ways[other]()) == expected).all() for other in others)
print(f"\non a 32×32 image all four agree, bit for bit, in all {expected.size:,} numbers")

times = race(ways, rounds=5)
for way in ways:
    print(f"  {way:34s} {1e3 * times.median(way):9.3f} ms   {times.ratio(slowest, way):7.0f}× the loop")

seconds = times.median(slowest) * numbers / expected.size
print(f"\nat the loop's pace the whole stem would take {seconds:.1f} s for one image.  The sum is the same,")
print("but who runs through it is not: the interpreter, number by number, or one routine written for it.")
