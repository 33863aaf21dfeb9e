"""9. FFT, and where it crosses over on this machine.

A convolution is a product of spectra: transform x and w, multiply, transform back.  That costs the
same however large the kernel is, while the direct sum grows with its taps.  So there is a size from
which the FFT is ahead; which one is a matter of the machine, and measured here.
"""

import jax.numpy as jnp
import numpy as np

import jconv
from jconv import textbook
from jconv.bench.timing import race

CHANNELS, SIZE = 32, 56
KERNELS = (3, 7, 11, 15, 21, 31)
rng = np.random.default_rng(0)


def by_spectra(x, w):
    """One image, one channel: y = F⁻¹(F x · conj F w), where conj makes it a correlation."""
    size = [h + r - 1 for h, r in zip(x.shape, w.shape, strict=True)]  # no wrapping round
    spectrum = np.fft.rfft2(x, size) * np.conj(np.fft.rfft2(w, size))
    p, q = (h - r + 1 for h, r in zip(x.shape, w.shape, strict=True))
    return np.fft.irfft2(spectrum, size)[:p, :q]


x, w = rng.standard_normal((12, 9)), rng.standard_normal((5, 4))
direct = textbook.conv2d_loops(x[None, None], w[None, None])[0, 0]
print(f"by spectra, in float64, off by {abs(by_spectra(x, w) - direct).max():.0e} from the loop\n")

x = jnp.asarray(rng.standard_normal((1, SIZE, SIZE, CHANNELS)), jnp.float32)
print(f"depthwise, {CHANNELS} channels, {SIZE}×{SIZE}, output as large as the input, float32")
print(f"{'kernel':>8s} {'multiply-adds':>14s} {'direct':>11s} {'fft':>11s}   fft's largest difference")
crossover = None
for k in KERNELS:
    w = jnp.asarray(rng.standard_normal((k, k, 1, CHANNELS)) / k, jnp.float32)
    spec = jconv.ConvSpec.of(spatial=(SIZE, SIZE), kernel=(k, k), in_channels=CHANNELS, out_channels=CHANNELS,
                             groups=CHANNELS, padding=((k // 2,) * 2,) * 2)  # fmt: skip
    names = {"direct": "depthwise", "fft": "fft"}
    calls = {
        way: lambda name=name, w=w: jconv.conv2d(
            x, w, padding="same", groups=CHANNELS, layout="NHWC", algorithm=name
        )
        for way, name in names.items()
    }
    times = race(calls, rounds=3)
    differ = float(abs(calls["fft"]() - calls["direct"]()).max() / abs(calls["direct"]()).max())
    ms = {way: 1e3 * times.median(way) for way in calls}
    print(f"{k:5d}×{k:<3d}{spec.macs:14,} {ms['direct']:8.2f} ms {ms['fft']:8.2f} ms   {differ:.0e}")
    if times.ratio("direct", "fft") > 1 and crossover is None:
        crossover = k

where = f"from {crossover}×{crossover} on" if crossover else f"nowhere up to {KERNELS[-1]}×{KERNELS[-1]}"
print(f"\non this machine the FFT is ahead {where}")
