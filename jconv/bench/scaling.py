"""Scaling on paper: what each device computes and sends, from 8 to 4096 of them, and what limits it.

Every term of one training step follows from the `ConvSpec`s of a network:

    compute   three roles of every layer's FLOPs, divided by the devices
    batch     a ring all-reduce of every kernel gradient: 2·(D − 1)/D of its bytes through each link
    space     the halo of every layer's x forward, and as many bytes back for its gradient (x with its
              halo is kept for the kernel's gradient); then the same all-reduce

A device of the middle of the grid sends most, and is the one counted.  `--check` compiles a small
step on 2, 4 and 8 simulated devices and compares: the bytes that its all-reduces sum with those of
the kernels, and the bytes that its permutes send with those of the halos.
"""

import argparse
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from jconv.bench import interrupts, options
from jconv.mesh import halo
from jconv.spec import ConvSpec, Ints, itemsize

HELP = "what sharding costs from 8 to 4096 devices, by formula"
DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def layer(size: int, c: int, o: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> ConvSpec:
    """A layer on one image that keeps its size, or divides it by the stride."""
    pad = max(0, kernel - stride)
    pair = (pad // 2, pad - pad // 2)
    return ConvSpec.of(spatial=(size, size), kernel=(kernel, kernel), in_channels=c, out_channels=o,
                       strides=(stride, stride), padding=(pair, pair), groups=groups)  # fmt: skip


def resnet50(side: int = 256) -> list[ConvSpec]:
    """The convolutions of ResNet-50 (He et al., 2016) on images of `side`²."""
    layers, size, c = [layer(side, 3, 64, 7, 2)], side // 4, 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers += [layer(size, c, width, 1), layer(size, width, width, 3, stride)]
            if not block:
                layers.append(layer(size, c, 4 * width, 1, stride))
            size, c = size // stride, 4 * width
            layers.append(layer(size, width, c, 1))
    return layers


def convnext_tiny(side: int = 256) -> list[ConvSpec]:
    """The convolutions of ConvNeXt-T (Liu et al., 2022): 7×7 depthwise, then two across channels."""
    layers, size, c = [layer(side, 3, 96, 4, 4)], side // 4, 96
    for stage, blocks in enumerate((3, 3, 9, 3)):
        if stage:
            layers.append(layer(size, c, 2 * c, 2, 2))
            size, c = size // 2, 2 * c
        block = [layer(size, c, c, 7, groups=c), layer(size, c, 4 * c, 1), layer(size, 4 * c, c, 1)]
        layers += block * blocks
    return layers


def unet(side: int = 2048) -> list[ConvSpec]:
    """The 3×3 convolutions of U-Net (Ronneberger et al., 2015), padded, on large images."""
    down = [(side >> d, 64 << d) for d in range(5)]
    layers = []
    for d, (size, c) in enumerate(down):
        layers += [layer(size, 1 if d == 0 else c // 2, c), layer(size, c, c)]
    for size, c in reversed(down[:-1]):
        layers += [layer(size, 2 * c, c), layer(size, c, c)]
    return layers


NETWORKS = {"ResNet-50, 256²": resnet50, "ConvNeXt-T, 256²": convnext_tiny, "U-Net, 2048²": unet}


@dataclasses.dataclass(frozen=True)
class Load:
    """What one device does in one training step."""

    flops: float
    bytes: float

    def seconds(self, flops: float, link: float) -> tuple[float, float]:
        """Time to compute and time to send at the stated rates."""
        return self.flops / flops, self.bytes / link


def all_reduce_bytes(layers: Sequence[ConvSpec], devices: int) -> float:
    """Bytes a device sends to sum all kernel gradients around a ring."""
    parameters = sum(spec.kernel_bytes for spec in layers)
    return 2 * (devices - 1) / devices * parameters


def grid(devices: int) -> Ints:
    """The most nearly square grid of a power of two of devices.

    >>> grid(8), grid(64)
    ((4, 2), (8, 8))
    """
    width = 2 ** (int(math.log2(devices)) // 2)
    return devices // width, width


def halo_bytes_of_a_device(spec: ConvSpec, parts: Ints) -> float:
    """Bytes that a device in the middle of the grid sends for one exchange of `spec`'s input."""
    return sum(elements for elements, _ in halo.messages(spec, parts)) * itemsize(spec.x_dtype)


def batch_load(layers: Sequence[ConvSpec], images: int, devices: int) -> Load:
    """`images` whole images on each device."""
    return Load(3 * images * sum(spec.flops for spec in layers), all_reduce_bytes(layers, devices))


def space_load(layers: Sequence[ConvSpec], images: int, devices: int) -> Load:
    """`images` images on each grid of devices, cut over it; x is sent forward, its gradient back."""
    parts = widest_grid(layers, devices)
    flops = 3 * images * sum(spec.flops for spec in layers) / math.prod(parts)
    sent = 2 * images * sum(halo_bytes_of_a_device(spec, parts) for spec in layers)
    return Load(flops, sent + all_reduce_bytes(layers, devices))


def widest_grid(layers: Sequence[ConvSpec], devices: int) -> Ints:
    """The largest grid that every layer's image divides over; the other devices take other images."""
    while any(halo.refuses(spec, axis, n) for spec in layers for axis, n in enumerate(grid(devices))):
        devices //= 2
    return grid(devices)


def rows(args: argparse.Namespace) -> Iterator[str]:
    """The table, line by line."""
    for name, network in NETWORKS.items():
        layers = network()
        values = sum(spec.parameters for spec in layers) / 1e6
        yield f"\n{name}: {len(layers)} convolutions, {values:.1f} M kernel values"
        yield f"  batch cut, {args.per_device} images a device"
        yield from _lines(layers, "", functools.partial(batch_load, layers, args.per_device), args)
        yield f"  image cut, {args.images} image(s) a grid"
        yield from _lines(layers, "grid", functools.partial(space_load, layers, args.images), args)


def _lines(
    layers: Sequence[ConvSpec], cut: str, load_of: Callable[[int], Load], args: argparse.Namespace
) -> Iterator[str]:
    yield f"    devices {cut:>7s}   GFLOP/device   MB sent/device   compute ms     send ms"
    overtaken = None
    for devices in DEVICES:
        load = load_of(devices)
        compute, send = load.seconds(args.tflops * 1e12, args.link * 1e9)
        over = "×".join(map(str, widest_grid(layers, devices))) if cut else ""
        yield (
            f"    {devices:7d} {over:>7s} {load.flops / 1e9:14.2f} {load.bytes / 1e6:16.3f}"
            f" {1e3 * compute:12.3f} {1e3 * send:11.3f}"
        )
        overtaken = overtaken or (devices if send > compute else None)
    yield (
        f"    sending overtakes computing at {overtaken} devices"
        if overtaken
        else "    computing stays ahead"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `scaling`."""
    parser.add_argument("--link", type=options.rate, default=50.0, metavar="GB/S",
                        help="link speed (default: 50)")  # fmt: skip
    parser.add_argument("--tflops", type=options.rate, default=50.0, metavar="N",
                        help="sustained TFLOP/s of a device (default: 50)")  # fmt: skip
    parser.add_argument("--per-device", type=options.positive, default=8, metavar="N",
                        help="images per device when the batch is cut (default: 8)")  # fmt: skip
    parser.add_argument("--images", type=options.positive, default=1, metavar="N",
                        help="images per grid when they are cut in space (default: 1)")  # fmt: skip
    parser.add_argument("--check", action="store_true",
                        help="compare the formulas with programs for 2, 4 and 8 devices")  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Print the table; with --check, 1 if a compiled program sends anything else."""
    print(f"{args.tflops:g} TFLOP/s a device, links of {args.link:g} GB/s; one training step, float32")
    for line in rows(args):
        print(line)
    return checked() if args.check else 0


def checked() -> int:
    """Run `jconv.bench.scaling_check` where there are eight devices."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return interrupts.child([sys.executable, "-m", "jconv.bench.scaling_check"], environment)
