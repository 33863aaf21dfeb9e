"""Layers of well-known networks, by family: what `python -m jconv bench` races.

Sizes are those of the published architectures; the batch is what a CPU does in a moment, and may be
replaced.  A transposed convolution of stride s is written as lax does: the input dilated by s, and
k − 1 − p zeros on each side for PyTorch's padding p.
"""

import dataclasses
import math

from jconv.spec import ConvSpec, Ints


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution of a network.

    Args:
      family: what kind of convolution it is.
      name: the network and which of its layers.
      spec: the problem, float32.

    >>> str(next(layer for layer in LAYERS if layer.family == "dense"))
    'ResNet-50 stem'
    """

    family: str
    name: str
    spec: ConvSpec

    def __str__(self) -> str:
        return self.name


def _layer(
    family: str,
    name: str,
    batch: int,
    c: int,
    o: int,
    spatial: Ints,
    kernel: Ints,
    *,
    stride: int = 1,
    dilation: int = 1,
    up: int = 1,
    groups: int = 1,
    pad: int | str | None = None,
) -> Layer:
    """Half the kernel's extent is padded on both sides, unless `pad` says how much, or "causal"."""
    reach = [(k - 1) * dilation for k in kernel]
    if isinstance(pad, str):
        padding = [(r, 0) for r in reach]
    else:
        sides = [r // 2 if pad is None else pad for r in reach]
        padding = [(r - p, r - p) if up > 1 else (p, p) for r, p in zip(reach, sides, strict=True)]
    ones = (1,) * len(kernel)
    return Layer(family, name, ConvSpec.of(
        batch=batch, in_channels=c, out_channels=o, spatial=spatial, kernel=kernel, groups=groups,
        padding=tuple(padding), strides=tuple(stride * s for s in ones),
        lhs_dilation=tuple(up * s for s in ones), rhs_dilation=tuple(dilation * s for s in ones),
    ))  # fmt: skip


# Architectures: ResNet (He 2016), VGG (Simonyan 2014), U-Net (Ronneberger 2015), MobileNetV2 (Sandler
# 2018), EfficientNet (Tan 2019), ConvNeXt (Liu 2022), ResNeXt (Xie 2017), ShuffleNet (Zhang 2018), DCGAN
# (Radford 2016), RepLKNet (Ding 2022), AlexNet (Krizhevsky 2012), wav2vec 2.0 (Baevski 2020), SincNet
# (Ravanelli 2018), Whisper (Radford 2023), Mamba (Gu 2023), WaveNet (van den Oord 2016), C3D (Tran 2015), R3D
# (Tran 2018), 3D U-Net (Çiçek 2016), X3D (Feichtenhofer 2020), DeepLabv3 (Chen 2017), DRN (Yu 2017).
LAYERS: tuple[Layer, ...] = (
    _layer("dense", "ResNet-50 stem", 4, 3, 64, (224, 224), (7, 7), stride=2),
    _layer("dense", "ResNet-50 stage 1", 8, 64, 64, (56, 56), (3, 3)),
    _layer("dense", "ResNet-50 stage 2, strided", 8, 128, 128, (56, 56), (3, 3), stride=2),
    _layer("dense", "ResNet-50 stage 3", 8, 256, 256, (14, 14), (3, 3)),
    _layer("dense", "ResNet-50 stage 4", 8, 512, 512, (7, 7), (3, 3)),
    _layer("dense", "VGG-16 block 3", 2, 256, 256, (56, 56), (3, 3)),
    _layer("dense", "U-Net level 1", 1, 64, 64, (256, 256), (3, 3)),
    _layer("dense", "ConvNeXt-T stem", 8, 3, 96, (224, 224), (4, 4), stride=4, pad=0),
    _layer("dense", "ConvNeXt-T downsampling", 8, 96, 192, (56, 56), (2, 2), stride=2, pad=0),
    _layer("pointwise", "ResNet-50 stage 1, out", 8, 64, 256, (56, 56), (1, 1)),
    _layer("pointwise", "ResNet-50 stage 2, shortcut", 8, 256, 512, (56, 56), (1, 1), stride=2),
    _layer("pointwise", "ResNet-50 stage 4, in", 8, 2048, 512, (7, 7), (1, 1)),
    _layer("pointwise", "MobileNetV2 expansion", 8, 24, 144, (56, 56), (1, 1)),
    _layer("pointwise", "MobileNetV2 projection", 8, 960, 160, (7, 7), (1, 1)),
    _layer("depthwise", "MobileNetV2 block 2, strided", 4, 96, 96, (112, 112), (3, 3), stride=2, groups=96),
    _layer("depthwise", "MobileNetV2 block 3", 4, 144, 144, (56, 56), (3, 3), groups=144),
    _layer("depthwise", "MobileNetV2 block 8", 4, 384, 384, (14, 14), (3, 3), groups=384),
    _layer("depthwise", "MobileNetV2 block 16", 4, 960, 960, (7, 7), (3, 3), groups=960),
    _layer("depthwise", "EfficientNet-B0 block 5", 4, 240, 240, (28, 28), (5, 5), groups=240),
    _layer("grouped", "ResNeXt-50 stage 1", 2, 128, 128, (56, 56), (3, 3), groups=32),
    _layer("grouped", "ResNeXt-50 stage 2, strided", 2, 256, 256, (56, 56), (3, 3), stride=2, groups=32),
    _layer("grouped", "ResNeXt-50 stage 3", 2, 512, 512, (14, 14), (3, 3), groups=32),
    _layer("grouped", "ResNeXt-50 stage 4", 2, 1024, 1024, (7, 7), (3, 3), groups=32),
    _layer("grouped", "ShuffleNet stage 2", 4, 240, 240, (28, 28), (1, 1), groups=3),
    _layer("transposed", "DCGAN block 2", 16, 512, 256, (4, 4), (4, 4), up=2, pad=1),
    _layer("transposed", "DCGAN block 4", 16, 128, 64, (16, 16), (4, 4), up=2, pad=1),
    _layer("transposed", "DCGAN output", 16, 64, 3, (32, 32), (4, 4), up=2, pad=1),
    _layer("transposed", "U-Net up-convolution", 1, 128, 64, (64, 64), (2, 2), up=2, pad=0),
    _layer("transposed", "3D U-Net up-convolution", 1, 64, 64, (16, 16, 16), (2, 2, 2), up=2, pad=0),
    _layer("large-kernel", "ConvNeXt-T stage 1", 2, 96, 96, (56, 56), (7, 7), groups=96),
    _layer("large-kernel", "ConvNeXt-T stage 3", 4, 384, 384, (14, 14), (7, 7), groups=384),
    _layer("large-kernel", "RepLKNet-31B stage 1", 1, 128, 128, (56, 56), (31, 31), groups=128),
    _layer("large-kernel", "AlexNet stem", 8, 3, 64, (224, 224), (11, 11), stride=4, pad=2),
    _layer("1-D", "Mamba causal k4", 4, 1536, 1536, (512,), (4,), groups=1536, pad="causal"),
    _layer("1-D", "wav2vec 2.0 layer 1", 1, 1, 512, (16000,), (10,), stride=5, pad=0),
    _layer("1-D", "wav2vec 2.0 layer 2", 1, 512, 512, (3199,), (3,), stride=2, pad=0),
    _layer("1-D", "SincNet layer 1", 8, 1, 80, (3200,), (251,), pad=0),
    _layer("1-D", "Whisper stem", 1, 80, 384, (3000,), (3,)),
    _layer("3-D", "C3D block 2", 1, 64, 128, (16, 56, 56), (3, 3, 3)),
    _layer("3-D", "R3D-18 stage 2", 1, 128, 128, (8, 28, 28), (3, 3, 3)),
    _layer("3-D", "3D U-Net level 1", 1, 32, 64, (32, 32, 32), (3, 3, 3)),
    _layer("3-D", "X3D-S block, depthwise", 1, 54, 54, (13, 40, 40), (3, 3, 3), groups=54),
    _layer("dilated", "DeepLabv3 branch, rate 12", 1, 256, 256, (33, 33), (3, 3), dilation=12),
    _layer("dilated", "DRN stage 5", 1, 256, 256, (28, 28), (3, 3), dilation=2),
    _layer("dilated", "DeepLab on MobileNetV2", 2, 384, 384, (33, 33), (3, 3), dilation=2, groups=384),
    _layer("dilated", "WaveNet layer 10", 1, 64, 128, (16000,), (2,), dilation=512, pad="causal"),
)  # fmt: skip

FAMILIES = tuple(dict.fromkeys(layer.family for layer in LAYERS))


def round_robin(layers: list[Layer]) -> list[Layer]:
    """One of each family, then another of each, …: a run that is cut short has seen every family.

    >>> [layer.family for layer in round_robin(list(LAYERS))[:3]]
    ['dense', 'pointwise', 'depthwise']
    """
    seen: dict[str, int] = {}
    turns = []
    for layer in layers:
        seen[layer.family] = seen.get(layer.family, 0) + 1
        turns.append((seen[layer.family], layer))
    return [layer for _, layer in sorted(turns, key=lambda turn: turn[0])]


def training_batch(spec: ConvSpec, most_bytes: float = 256e6) -> int:
    """The largest of 128, 64 and 32 whose input and output stay below `most_bytes` each.

    >>> training_batch(ConvSpec.of(spatial=(224, 224), kernel=(1, 1), in_channels=64, out_channels=64))
    32
    """
    one = 4 * max(math.prod(spec.x_shape), math.prod(spec.y_shape)) / spec.batch
    return next((batch for batch in (128, 64) if batch * one <= most_bytes), 32)
