"""Compiles training steps on 2, 4 and 8 devices and compares what they send with `scaling`'s formulas.

Run by `python -m jconv scaling --check` in a process that has eight (simulated) devices.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jconv
import jconv.sharding
from jconv.bench import scaling
from jconv.spec import ConvSpec

SIZES = {"f32": 4, "bf16": 2, "f16": 2, "f64": 8, "s32": 4}


def small_network(side: int = 32) -> list[ConvSpec]:
    """One of each kind of layer: dense, strided, depthwise, across channels."""
    layer = scaling.layer
    return [layer(side, 3, 8, 3), layer(side, 8, 8, 4, 2), layer(side // 2, 8, 8, 7, groups=8),
            layer(side // 2, 8, 16, 1)]  # fmt: skip


def sent(program: str) -> dict[str, int]:
    """Bytes per kind of collective in a compiled program: summed results, for permutes times their links."""
    total = {"all-reduce": 0, "collective-permute": 0}
    for result, kind, rest in re.findall(r"= (\(?[a-z].*?) (all-reduce|collective-permute)\((.*)", program):
        arrays = re.findall(r"([a-z]+\d+)\[([\d,]*)\]", result)
        size = sum(SIZES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)
        pairs = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", rest)
        total[kind] += size * (pairs.group(1).count("{") if pairs else 1)
    return total


def network(conv: Any, layers: Sequence[ConvSpec], kernels: Any, x: jax.Array) -> jax.Array:
    """The layers one after the other; the sum of squares at the end."""
    for spec, w in zip(layers, kernels, strict=True):
        geometry = dict(stride=spec.strides, padding=spec.padding, groups=spec.groups)
        x = conv(x, w, **geometry, layout="NHWC", algorithm="xla")  # the quickest to compile
    return (x * x).sum()


def arrays(layers: Sequence[ConvSpec], batch: int) -> tuple[list[jax.Array], jax.Array]:
    """Kernels and images."""
    kernels = [jax.numpy.asarray(np.ones(spec.w_shape, "float32")) for spec in layers]
    return kernels, jax.numpy.ones((batch, *layers[0].x_shape[1:]), "float32")


def batch_step(layers: Sequence[ConvSpec], devices: int) -> str:
    """HLO of kernel gradients with the batch cut."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    kernels, x = arrays(layers, devices)
    x = jax.device_put(x, NamedSharding(mesh, P("data")))
    kernels = jax.device_put(kernels, NamedSharding(mesh, P()))
    step = jax.jit(jax.grad(functools.partial(network, jconv.conv2d, layers)))
    return step.lower(kernels, x).compile().as_text() or ""


def space_step(layers: Sequence[ConvSpec], devices: int) -> str:
    """HLO of kernel and image gradients with the image cut over a grid."""
    names = ("rows", "columns")
    mesh = jax.make_mesh(scaling.grid(devices), names, axis_types=(AxisType.Auto,) * 2)
    conv = functools.partial(jconv.sharding.conv, spatial_axes=names)
    cut = P(None, *names)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), cut), out_specs=P())
    def loss(kernels: Any, x: jax.Array) -> jax.Array:
        return jax.lax.psum(network(conv, layers, kernels, x), names)

    return jax.jit(jax.grad(loss, (0, 1))).lower(*arrays(layers, 1)).compile().as_text() or ""


def main(counts: Sequence[int] = (2, 4, 8)) -> int:
    """0 if every program for so many devices sends what the formulas say."""
    layers, wrong = small_network(), 0
    parameters = 4 * sum(spec.parameters for spec in layers)
    for devices in counts:
        halos = 2 * sum(jconv.sharding.halo_bytes(spec, scaling.grid(devices)) for spec in layers)
        for name, step, expected in (
            ("batch", batch_step, {"all-reduce": parameters, "collective-permute": 0}),
            ("space", space_step, {"all-reduce": parameters, "collective-permute": halos}),
        ):
            found = sent(step(layers, devices))
            wrong += found != expected
            print(
                f"{name} on {devices}: {found}",
                "as the formulas say" if found == expected else f"not {expected}",
            )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
