"""MobileNetV2, ConvNeXt-T and ResNet-50 in PyTorch: the same layers, to see what a CPU can do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any


def _normed(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: Any = None) -> Any:
    from torch import nn

    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([act()] if act else []))


def _residual(body: Any, short: Any = None, after: Any = None) -> Any:
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.short, self.after = body, short or nn.Identity(), after or nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.after(self.short(x) + self.body(x))

    return Residual()


def mobilenet_v2() -> Any:
    """Sandler et al., 2018: expand, depthwise, project."""
    from torch import nn

    layers, cin = [_normed(3, 32, 3, 2, act=nn.ReLU6)], 32
    for expand, cout, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):  # fmt: skip
        for step in (stride, *[1] * (count - 1)):
            wide = cin * expand
            first = [_normed(cin, wide, 1, act=nn.ReLU6)] if expand > 1 else []
            body = nn.Sequential(
                *first, _normed(wide, wide, 3, step, wide, nn.ReLU6), _normed(wide, cout, 1)
            )  # fmt: skip
            layers.append(_residual(body) if step == 1 and cin == cout else body)
            cin = cout
    head = (_normed(cin, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))
    return nn.Sequential(*layers, *head)


def convnext_tiny() -> Any:
    """Liu et al., 2022: 7×7 depthwise, normalise, a wide pointwise pair."""
    from torch import nn

    def swapped(*layers: Any) -> list[Any]:
        return [_Permute((0, 2, 3, 1)), *layers, _Permute((0, 3, 1, 2))]

    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
    layers = [nn.Conv2d(3, 96, 4, 4), *swapped(nn.LayerNorm(96))]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(depth):
            mixed = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            layers.append(_residual(nn.Sequential(depthwise, *swapped(*mixed))))
        if stage < 3:
            layers += [*swapped(nn.LayerNorm(width)), nn.Conv2d(width, widths[stage + 1], 2, 2)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 1000))
    return nn.Sequential(*layers, *head)


def _Permute(order: tuple[int, ...]) -> Any:
    from torch import nn

    class Permute(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(order)

    return Permute()


def resnet50() -> Any:
    """He et al., 2015, bottlenecks with the stride in the 3×3."""
    from torch import nn

    layers, cin = [_normed(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            body = nn.Sequential(
                _normed(cin, width, 1, act=nn.ReLU), _normed(width, width, 3, stride, act=nn.ReLU),
                _normed(width, 4 * width, 1),
            )  # fmt: skip
            short = _normed(cin, 4 * width, 1, stride) if i == 0 else None
            layers.append(_residual(body, short, nn.ReLU()))
            cin = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


TWINS: dict[str, Callable[[], Any]] = {
    "MobileNetV2": mobilenet_v2,
    "ConvNeXt-T": convnext_tiny,
    "ResNet-50": resnet50,
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
    net, x = TWINS[name]().train(), torch.randn(batch, 3, 224, 224)

    def forward() -> Any:
        with torch.no_grad():
            return net(x).numpy()

    def train() -> Any:
        params = list(itertools.chain(net.parameters()))
        return [g.numpy() for g in torch.autograd.grad(net(x).square().mean(), params)]

    return {"forward": forward, "train": train}
