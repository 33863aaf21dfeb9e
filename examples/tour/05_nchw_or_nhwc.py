"""5. NCHW against NHWC: the same numbers in another order, and when that matters.

Shapes say nothing about speed; the order in memory does.  A matrix product over channels wants the
channels of a pixel side by side.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.timing import race

rng = np.random.default_rng(0)

image = np.arange(2 * 2 * 3).reshape(1, 2, 2, 3)  # n c h w
print("two channels of 2×3 pixels in memory")
print("  NCHW", image.ravel())
print("  NHWC", image.transpose(0, 2, 3, 1).ravel(), "\n")


def both(f, n, c, o, size, kernel, scanned=False):
    """`f(x, w, layout)` of one layer in both layouts, under jit, perhaps inside a loop of two steps."""
    last = jnp.asarray(rng.standard_normal((n, size, size, c)), jnp.float32)
    hwio = jnp.asarray(rng.standard_normal((kernel, kernel, c, o)) / kernel**2 / c, jnp.float32)
    arrays = {"NCHW": (last.transpose(0, 3, 1, 2), hwio.transpose(3, 2, 0, 1)), "NHWC": (last, hwio)}

    def call(layout):
        step = lambda x, w: jnp.tanh(f(x, w, layout))  # noqa: E731
        if not scanned:
            return jax.jit(step)
        return jax.jit(lambda x, w: jax.lax.scan(lambda y, _: (step(y, w), None), x, None, length=2)[0])

    calls = {layout: call(layout) for layout in arrays}
    a, b = (calls[layout](*arrays[layout]) for layout in arrays)
    assert jnp.allclose(a.transpose(0, 2, 3, 1), b, atol=1e-5)
    return {layout: lambda layout=layout: calls[layout](*arrays[layout]) for layout in arrays}


def by_jconv(x, w, layout):
    """jconv's, which makes everything channels last inside."""
    return jconv.conv2d(x, w, padding="same", layout=layout)


def by_lax(x, w, layout):
    """lax's, in the layout as given."""
    kernels = "OIHW" if layout == "NCHW" else "HWIO"
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=(layout, kernels, layout))


CASES = {
    "3×3, 64 channels, 28×28": (2, 64, 64, 28, 3),
    "3×3, 4 channels, 64×64": (2, 4, 4, 64, 3),
    "1×1, 128 channels, 28×28": (2, 128, 128, 28, 1),
    "3×3, 32 channels, 14×14, in a loop": (1, 32, 32, 14, 3, True),
}
ratios, unsteady = {}, []
print(f"{'NCHW time / NHWC time':40s} {'lax':>8s} {'jconv':>8s}")
for name, case in CASES.items():
    for way in (by_lax, by_jconv):
        times = race(both(way, *case), rounds=5)
        ratios[name, way.__name__] = times.ratio("NCHW", "NHWC")
        unsteady += filter(None, [times.unsteady()])
    print(f"{name:40s} {ratios[name, 'by_lax']:8.2f} {ratios[name, 'by_jconv']:8.2f}")

print("\nmore than a quarter between the two orders:")
for way in ("by_lax", "by_jconv"):
    apart = [f"{name} ({r:.2f})" for (name, who), r in ratios.items() if who == way and not 0.8 < r < 1.25]
    print(f"  {way.replace('_', ' '):9s} {'; '.join(apart) or 'none of these layers'}")

# jconv transposes once on the way in and once on the way out, so NCHW costs it two passes over memory.
# Whether they are hidden behind the products is a question to these numbers, not to a rule.
few, many = (ratios[name, "by_jconv"] for name in ("3×3, 4 channels, 64×64", "3×3, 64 channels, 28×28"))
print(
    f"\njconv's two transposes of NCHW: {many:.2f} times NHWC's time at 64 channels, {few:.2f} at 4, so here"
)
if max(few, many) < 1.25:
    print("neither layer pays noticeably for them")
elif few > 1.1 * many:
    print("the layer with few channels, which has few products to hide them behind, pays more for them")
elif many > 1.1 * few:
    print("the layer with many channels pays more for them: its products do not hide them")
else:
    print("both pay about alike for them")
for warning in unsteady[:1]:
    print(warning)
