"""4. The backward pass is two convolutions, so it costs about twice the forward.

    ∂w   x convolved with g:             which input met which output gradient
    ∂x   g convolved with w turned:      which outputs each input went into
"""  # fmt: skip

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from jconv import textbook
from jconv.bench.timing import race

rng = np.random.default_rng(0)
x, w, g = (rng.integers(-3, 4, s).astype(np.float32) for s in ((2, 3, 9, 8), (4, 3, 3, 3), (2, 4, 5, 4)))
knobs = dict(stride=2, padding=1)

# Three ways to the same gradients: JAX, the two convolutions by name, and NumPy by hand.
_, pull = jax.vjp(lambda x, w: jconv.conv2d(x, w, **knobs), jnp.asarray(x), jnp.asarray(w))
by_jax = pull(jnp.asarray(g))
by_name = jconv.grad_input(x.shape, w, g, **knobs), jconv.grad_kernel(x, w.shape, g, **knobs)
by_hand = textbook.conv2d_backward(g, x, w, **knobs)
for name, auto, named, hand in zip(("∂x", "∂w"), by_jax, by_name, by_hand[:2], strict=True):
    assert (auto == named).all()
    assert (auto == hand).all()
    print(f"{name}: jax.grad, jconv.grad_* and NumPy by hand agree in all {auto.size} numbers, bit for bit")
if importlib.util.find_spec("torch"):
    torch = importlib.import_module("torch")
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, w)]
    theirs = torch.autograd.grad(torch.nn.functional.conv2d(*tensors, **knobs), tensors, torch.from_numpy(g))
    assert all((mine == one.numpy()).all() for mine, one in zip(by_hand[:2], theirs, strict=True))
    print("torch.autograd.grad gives them too, bit for bit")
else:
    print("PyTorch is not installed: not compared with torch.autograd.grad")

# The price.  Each role sums the same products, only along other letters.
spec = jconv.ConvSpec.of(
    batch=4, spatial=(28, 28), in_channels=64, out_channels=64, kernel=(3, 3), padding=((1, 1), (1, 1))
)
print(f"\n{spec}")
print(f"  forward {spec.macs:,} multiply-adds; grad_input and grad_kernel: as many each")
print("  wherever x·w goes into a y, g·w goes into the ∂x and x·g into the ∂w of the same three places")

x, w, g = (
    jnp.asarray(rng.standard_normal((n, c, *space)), jnp.float32)
    for n, c, space in ((4, 64, (28, 28)), (64, 64, (3, 3)), (4, 64, (28, 28)))
)
ways = {
    "forward": lambda: jconv.conv2d(x, w, padding=1),
    "grad_input": lambda: jconv.grad_input(x.shape, w, g, padding=1),
    "grad_kernel": lambda: jconv.grad_kernel(x, w.shape, g, padding=1),
}
times = race(ways)
print()
for way in ways:
    print(f"  {way:12s} {1e3 * times.median(way):7.2f} ms")
ratio = times.ratio("grad_input", "forward") + times.ratio("grad_kernel", "forward")
print(f"\nbackward to forward by count 2 : 1, measured here {ratio:.1f} : 1")
print(
    f"a layer whose forward takes 10 ms should take about 20 ms back, and at this ratio {10 * ratio:.0f} ms"
)
for warning in filter(None, [times.unsteady()]):
    print(warning)
print("the first layer of a network needs no ∂x, so there it is 1 : 1 by count")
