"""10. Choosing: which algorithm, why, and how often the model is right on this machine."""

import jax.numpy as jnp
import numpy as np

import jconv
from jconv.bench.timing import race
from jconv.choice.pick import choose

rng = np.random.default_rng(0)
LAYERS = {
    "3×3, 64 → 64": dict(kernel=(3, 3), in_channels=64, out_channels=64),
    "1×1, 128 → 64": dict(kernel=(1, 1), in_channels=128, out_channels=64),
    "depthwise 3×3": dict(kernel=(3, 3), in_channels=96, out_channels=96, groups=96),
    "8 groups, 3×3": dict(kernel=(3, 3), in_channels=64, out_channels=64, groups=8),
}


def call(spec, name):
    """A call of one layer by one algorithm."""
    x, w = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (spec.x_shape, spec.w_shape))
    options = dict(padding="same", groups=spec.groups, layout="NHWC", algorithm=name)
    return lambda: jconv.conv2d(x, w, **options)


regrets = []
for title, fields in LAYERS.items():
    same = tuple((k // 2, k // 2) for k in fields["kernel"])
    spec = jconv.ConvSpec.of(**fields, batch=2, spatial=(28, 28), padding=same)
    choice = choose(spec)
    likely = list(choice.seconds)[:4]
    names = [choice.algorithm.name, *(name for name in likely if name != choice.algorithm.name)]
    times = race({name: call(spec, name) for name in names}, rounds=5)
    fastest = min(names, key=times.median)
    regrets.append(times.ratio(choice.algorithm.name, fastest))
    print(f"{title}: {choice.reason}")
    for name in sorted(names, key=times.median):
        mark = "→" if name == choice.algorithm.name else " "
        estimate = f"estimated {1e3 * choice.seconds[name]:.3f} ms"
        print(f"  {mark} {name:26s} {1e3 * times.median(name):8.3f} ms, {estimate}")
    refused = [f"{name} ({why})" for name, why in choice.rejected.items() if name not in choice.seconds]
    print(f"    not able: {refused[0]}" + (f" and {len(refused) - 1} more\n" if refused[1:] else "\n"))

right = sum(regret == 1 for regret in regrets)
print(f"the choice was the fastest of the likely ones for {right} of {len(regrets)} layers; at worst it took")
print(f"{max(regrets):.2f} times as long as the fastest.  Where that is not enough: measure.")
