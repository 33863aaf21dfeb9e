"""The models in PyTorch: the same layers on the same inputs, to see what a CPU can do."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jconv.bench import models_torch_classifiers as classifiers
from jconv.bench import models_torch_images as images
from jconv.bench import models_torch_sequences as sequences


@dataclasses.dataclass(frozen=True)
class Twin:
    """A model of `jconv.bench.models` as a user of PyTorch writes it.

    Args:
      build: gives the `torch.nn.Module`, with random weights.
      shape: of an input without the batch, channels first (a Mamba block: time, channels).
    """

    build: Callable[[], Any]
    shape: tuple[int, ...]


TWINS: dict[str, Twin] = {
    "MobileNetV2": Twin(classifiers.mobilenet_v2, (3, 224, 224)),
    "ConvNeXt-T": Twin(classifiers.convnext_tiny, (3, 224, 224)),
    "EfficientNet-B0": Twin(classifiers.efficientnet_b0, (3, 224, 224)),
    "ResNet-50": Twin(classifiers.resnet50, (3, 224, 224)),
    "ResNeXt-50": Twin(classifiers.resnext50, (3, 224, 224)),
    "U-Net": Twin(images.unet, (3, 128, 128)),
    "U-Net 3-D": Twin(images.unet3d, (1, 32, 64, 64)),
    "DCGAN generator": Twin(images.dcgan, (100, 1, 1)),
    "WaveNet": Twin(sequences.wavenet, (1, 4096)),
    "Mamba block": Twin(sequences.mamba, (1024, 256)),
}


def calls(name: str, batch: int) -> dict[str, Callable[[], Any]]:
    """Forward and gradient of the twin, each a call; none where there is no PyTorch or no twin."""
    try:
        import torch
    except ImportError:
        return {}
    if name not in TWINS:
        return {}
    torch.manual_seed(0)
    twin = TWINS[name]
    net, x = twin.build().train(), torch.randn(batch, *twin.shape)
    # In memory channels come last: forward 1.0 to 1.9 and train 1.0 to 1.6 times as fast on one CPU core.
    if order := {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim):
        net, x = net.to(memory_format=order), x.to(memory_format=order)
    params = list(net.parameters())

    def forward() -> Any:
        with torch.no_grad():
            return net(x).numpy()

    def train() -> Any:
        loss = net(x).square().mean()
        return [g.numpy() for g in torch.autograd.grad(loss, params, materialize_grads=True)]

    return {"forward": forward, "train": train}
