"""An algorithm of your own: one function forward, and gradients, vmap and the tests come for free.

The idea here is the summed-area table (Crow, 1984).  A box blur adds up r × s pixels per output.  With
the sums of everything above and to the left in a table T, any such sum is four look-ups,

    Σ box = T[bottom, right] − T[top, right] − T[bottom, left] + T[top, left]

whatever the size of the box.  It holds for any kernel whose taps are all alike.  jconv cannot see the
values of a kernel, so whoever asks for this algorithm by name promises that they are.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv.algorithms.record import Loop
from jconv.algorithms.windows import pad
from jconv.testing import cases, check_algorithm

# -- first, one that is right for every kernel -----------------------------------------------------


def row_by_row(x, w, spec):
    """Each row of the kernel as a 1-D convolution written as one product; the rows' results summed."""
    x, total = pad(x, spec), 0.0
    (rows, columns), (p, q) = spec.kernel, spec.out_spatial
    (ds, dt), (s, t) = spec.rhs_dilation, spec.strides
    for r in range(rows):
        strip = x[:, r * ds :: s][:, :p]
        taps = [strip[:, :, k * dt :: t][:, :, :q] for k in range(columns)]
        total += jnp.einsum("kn...c,kco->n...o", jnp.stack(taps), w[r])
    return total


def only_two_dimensions(spec):
    """None, or the reason: the one string that errors and the checks show."""
    if spec.ndim != 2:
        return f"it has rows and columns, not {spec.ndim} dimensions"
    return "it knows no groups" if spec.groups > 1 else None


ROW_BY_ROW = jconv.Algorithm("row_by_row", row_by_row, rejects=only_two_dimensions)

rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((2, 3, 17, 13)), jnp.float32)
w = jnp.asarray(rng.standard_normal((4, 3, 3, 5)), jnp.float32)


def loss(x, w, algorithm):
    """Something to differentiate."""
    return (jconv.conv2d(x, w, stride=2, padding=1, algorithm=algorithm) ** 2).mean()


print("forward and gradients of row_by_row against jconv's own choice")
for name, fn in {"value": loss, "∂x": jax.grad(loss), "∂w": jax.grad(loss, 1)}.items():
    print(f"  {name:6s} differ by {abs(fn(x, w, ROW_BY_ROW) - fn(x, w, 'auto')).max():.1e}")
kernels = jnp.stack([w, 2 * w, 3 * w])
many = jax.vmap(lambda w: jconv.conv2d(x, w, algorithm=ROW_BY_ROW))(kernels)
print("  three kernels under vmap", many.shape, "run as one convolution to 12 channels")

try:
    jconv.conv1d(x[:, :, 0], w[:, :, 0], algorithm=ROW_BY_ROW)
except ValueError as refusal:
    print(f"\nit refuses by itself: {refusal}")

some = [cases.named(name) for name in ("plain", "stride", "dilation", "asymmetric")]
verdicts = check_algorithm(ROW_BY_ROW, some)
print(f"\n{len(verdicts)} comparisons with NumPy and lax agree, in all roles and under vmap")

wrong = jconv.Algorithm("wrong", lambda x, w, spec: row_by_row(x, w, spec) * 1.001, only_two_dimensions)
try:
    check_algorithm(wrong, some[:1])
except AssertionError as found:
    print("one that errs by a thousandth is found:", str(found).splitlines()[0])

# -- then the one that no compiler knows -----------------------------------------------------------


def summed_area(x, w, spec):
    """Four look-ups in a summed-area table, times the one value each (c, o) has."""
    x = pad(x, spec)
    table = jnp.pad(x.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0), (0, 0)))
    (r, s), (p, q) = spec.kernel, spec.out_spatial
    boxes = table[:, r:, s:] - table[:, :-r, s:] - table[:, r:, :-s] + table[:, :-r, :-s]
    return jnp.einsum("npqc,co->npqo", boxes[:, :p, :q], w[0, 0])


def only_plain_boxes(spec):
    """A box has no holes and moves one step at a time."""
    plain = {*spec.strides, *spec.rhs_dilation, *spec.lhs_dilation} == {1}
    return only_two_dimensions(spec) or (None if plain else "a box has no holes and moves step by step")


BOX = jconv.Algorithm(
    "summed_area", summed_area, only_plain_boxes,
    steps=lambda spec, role: (Loop(4 * spec.macs / spec.taps, 6 * spec.bytes),),
    exact=False,  # sums over the whole image: a NaN reaches everything below and to the right of it
)  # fmt: skip

print("\na box blur of 300 × 300, k × k")
image = jnp.asarray(rng.standard_normal((1, 1, 300, 300)), jnp.float32)
for k in (3, 31):
    box = jnp.full((1, 1, k, k), 1 / k**2, jnp.float32)
    blurred, usual = (jconv.conv2d(image, box, algorithm=a) for a in (BOX, "xla"))
    error = abs(blurred - usual).max()
    print(f"  k = {k:2d}: {k * k:3d} products an output, or 4 look-ups; differ by {error:.1e}")
# ∂x is the rewritten forward: a flipped box is a box.  ∂w is not one, and has to be asked of another.
dx = jax.grad(lambda image: jconv.conv2d(image, box, algorithm=BOX)[0, 0, 100, 100])(image)
print(
    "  one output depends on",
    int((abs(dx) > 1e-6).sum()),
    "pixels, by the gradient of the same four look-ups",
)
