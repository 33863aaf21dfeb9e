"""The models that no library ships, written as its users write them; and Haiku's ResNet.

Each function takes `full` and gives (apply, params, shape of an input without the batch).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Written = tuple[Callable[[Any, jax.Array], jax.Array], Any, tuple[int, ...]]


def _haiku(forward: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> Written:
    import haiku as hk

    pure = hk.transform_with_state(forward)
    params, state = pure.init(jax.random.key(0), jnp.zeros((1, *shape)))
    return lambda params, x: pure.apply(params, state, None, x)[0], params, shape


def resnet(full: bool) -> Written:
    """Haiku's ResNet-50; reduced, one block a group."""
    import haiku as hk

    def forward(x: jax.Array) -> jax.Array:
        if full:
            return hk.nets.ResNet50(1000)(x, is_training=True)
        net = hk.nets.ResNet((1, 1, 1, 1), 10, bottleneck=True, channels_per_group=(8, 16, 24, 32))
        return net(x, is_training=True)

    return _haiku(forward, (224, 224, 3) if full else (33, 31, 3))


def wavenet(full: bool) -> Written:
    """Gated, causal, dilated 1-D convolutions with skip connections (van den Oord et al., 2016)."""
    import haiku as hk

    layers, channels, length = (20, 64, 4096) if full else (6, 8, 100)

    def forward(x: jax.Array) -> jax.Array:
        x, skips = hk.Conv1D(channels, 1)(x), jnp.zeros(())
        for i in range(layers):
            gates = hk.Conv1D(2 * channels, 2, rate=2 ** (i % 10), padding=hk.pad.causal)(x)
            tanh, sigmoid = jnp.split(gates, 2, axis=-1)
            gated = jnp.tanh(tanh) * jax.nn.sigmoid(sigmoid)
            skips = skips + hk.Conv1D(channels, 1)(gated)
            x = x + hk.Conv1D(channels, 1)(gated)
        return hk.Conv1D(1, 1)(jax.nn.relu(skips))

    return _haiku(forward, (length, 1))


def _nnx(model: Any, shape: tuple[int, ...]) -> Written:
    from flax import nnx

    graph, params, *rest = nnx.split(model, nnx.Param, ...)
    return lambda params, x: nnx.merge(graph, params, *rest, copy=True)(x), params, shape


def resnext(full: bool) -> Written:
    """ResNeXt-50 32×4d (Xie et al., 2017), in Flax nnx: bottlenecks whose 3×3 has 32 groups."""
    from flax import nnx

    groups, width, blocks, classes = (32, 128, (3, 4, 6, 3), 1000) if full else (4, 16, (1, 1), 10)
    rngs = nnx.Rngs(0)

    class Normed(nnx.Module):
        def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
            sizes, options = (kernel, kernel), dict[str, Any](feature_group_count=groups, use_bias=False)
            self.conv = nnx.Conv(cin, cout, sizes, stride, **options, rngs=rngs)
            self.norm = nnx.BatchNorm(cout, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.norm(self.conv(x))

    class Block(nnx.Module):
        def __init__(self, cin: int, width: int, stride: int) -> None:
            self.reduce = Normed(cin, width, 1)
            self.grouped = Normed(width, width, 3, stride, groups)
            self.expand = Normed(width, 2 * width, 1)
            self.short = Normed(cin, 2 * width, 1, stride) if stride > 1 or cin != 2 * width else None

        def __call__(self, x: jax.Array) -> jax.Array:
            y = nnx.relu(self.grouped(nnx.relu(self.reduce(x))))
            return nnx.relu(self.expand(y) + (self.short(x) if self.short else x))

    class ResNeXt(nnx.Module):
        def __init__(self) -> None:
            self.stem, cin, self.blocks = Normed(3, width // 2, 7, 2), width // 2, nnx.List()
            for stage, i in ((stage, i) for stage, count in enumerate(blocks) for i in range(count)):
                self.blocks.append(Block(cin, width << stage, 2 if i == 0 and stage else 1))
                cin = 2 * width << stage
            self.head = nnx.Linear(cin, classes, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), "SAME")
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean((1, 2)))

    return _nnx(ResNeXt(), (224, 224, 3) if full else (33, 31, 3))


def mamba(full: bool) -> Written:
    """The block of Mamba (Gu & Dao, 2023): a causal depthwise convolution before a selective scan."""
    from flax import nnx

    width, length, depth = (256, 1024, 4) if full else (16, 37, 2)
    rngs = nnx.Rngs(0)

    class Block(nnx.Module):
        def __init__(self) -> None:
            self.norm, self.into = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, 4 * width, rngs=rngs)
            self.conv = nnx.Conv(
                2 * width, 2 * width, 4, padding="CAUSAL", feature_group_count=2 * width, rngs=rngs
            )
            self.rate, self.out = (nnx.Linear(2 * width, size, rngs=rngs) for size in (2 * width, width))

        def __call__(self, x: jax.Array) -> jax.Array:
            u, gate = jnp.split(self.into(self.norm(x)), 2, axis=-1)
            u = nnx.silu(self.conv(u))
            keep = nnx.sigmoid(self.rate(u))
            decay = lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1])  # noqa: E731
            _, state = jax.lax.associative_scan(decay, (keep, (1 - keep) * u), axis=1)
            return x + self.out(state * nnx.silu(gate))

    return _nnx(nnx.Sequential(*(Block() for _ in range(depth))), (length, width))


def _linen(model: Any, shape: tuple[int, ...]) -> Written:
    params = model.init(jax.random.key(0), jnp.zeros((1, *shape)))
    return model.apply, params, shape


def unet(full: bool) -> Written:
    """U-Net (Ronneberger et al., 2015) with transposed convolutions, in Flax linen."""
    widths, shape = ((32, 64, 128, 256), (128, 128, 3)) if full else ((6, 10, 14), (20, 28, 3))
    return _unet(widths, shape)


def unet3d(full: bool) -> Written:
    """The same on volumes (Çiçek et al., 2016)."""
    widths, shape = ((16, 32, 64), (32, 64, 64, 1)) if full else ((4, 6), (6, 8, 10, 1))
    return _unet(widths, shape)


def _unet(widths: tuple[int, ...], shape: tuple[int, ...]) -> Written:
    from flax import linen as nn

    ndim = len(shape) - 1

    class Double(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(2):
                x = nn.relu(nn.GroupNorm(2)(nn.Conv(self.width, (3,) * ndim)(x)))
            return x

    class UNet(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            *down, bottom = widths
            skips = []
            for width in down:
                skips.append(Double(width)(x))
                x = nn.max_pool(skips[-1], (2,) * ndim, (2,) * ndim)
            x = Double(bottom)(x)
            for width, skip in zip(reversed(down), reversed(skips), strict=True):
                x = nn.ConvTranspose(width, (2 if ndim == 2 else 4,) * ndim, (2,) * ndim)(x)
                x = Double(width)(jnp.concatenate([x, skip], axis=-1))
            return nn.Conv(2, (1,) * ndim)(x)

    return _linen(UNet(), shape)


def dcgan(full: bool) -> Written:
    """The generator of DCGAN (Radford et al., 2015), in Equinox: five transposed convolutions."""
    import equinox as eqx

    latent, width = (100, 64) if full else (5, 4)
    sizes = [(latent, 8, 4, 1, 0), (8, 4, 4, 2, 1), (4, 2, 4, 2, 1), (2, 1, 4, 2, 1)]
    keys = iter(jax.random.split(jax.random.key(0), 5))
    layers: list[Any] = []
    for cin, cout, kernel, stride, pad in sizes:
        cin = cin if pad == 0 else cin * width
        up = eqx.nn.ConvTranspose2d(
            cin, cout * width, kernel, stride, padding=pad, use_bias=False, key=next(keys)
        )
        layers += [up, eqx.nn.GroupNorm(1, cout * width), eqx.nn.Lambda(jax.nn.relu)]
    layers.append(eqx.nn.ConvTranspose2d(width, 3, 4, 2, padding=1, key=next(keys)))
    params, static = eqx.partition(eqx.nn.Sequential(layers), eqx.is_array)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(jax.vmap(eqx.combine(params, static))(x))

    return apply, params, (latent, 1, 1)
