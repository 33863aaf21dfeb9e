"""The image classifiers in PyTorch, with the layers of the JAX models (without the rescaling of pixels)."""

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
        return [_permute((0, 2, 3, 1)), *layers, _permute((0, 3, 1, 2))]

    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
    layers = [nn.Conv2d(3, 96, 4, 4), *swapped(nn.LayerNorm(96))]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for _ in range(depth):
            mixed = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            layers.append(_residual(nn.Sequential(depthwise, *swapped(*mixed, _layer_scale(width)))))
        if stage < 3:
            layers += [*swapped(nn.LayerNorm(width)), nn.Conv2d(width, widths[stage + 1], 2, 2)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 1000))
    return nn.Sequential(*layers, *head)


def _permute(order: tuple[int, ...]) -> Any:
    from torch import nn

    class Permute(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(order)

    return Permute()


def _layer_scale(width: int) -> Any:
    import torch
    from torch import nn

    class LayerScale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((width,), 1e-6))

        def forward(self, x: Any) -> Any:
            return x * self.factor

    return LayerScale()


def efficientnet_b0() -> Any:
    """Tan & Le, 2019: MobileNetV2's blocks with swish, squeeze and excitation, and stochastic depth."""
    from torch import nn

    layers, cin, drops = [_normed(3, 32, 3, 2, act=nn.SiLU)], 32, iter(range(16))
    for expand, cout, count, stride, kernel in ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5),
                                                (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
                                                (6, 320, 1, 1, 3)):  # fmt: skip
        for step in (stride, *[1] * (count - 1)):
            wide, rate = cin * expand, 0.2 * next(drops) / 16
            body = nn.Sequential(
                *([_normed(cin, wide, 1, act=nn.SiLU)] if expand > 1 else []),
                _normed(wide, wide, kernel, step, wide, nn.SiLU),
                _squeeze_excite(wide, cin // 4), _normed(wide, cout, 1),
            )  # fmt: skip
            skips = step == 1 and cin == cout
            layers.append(_residual(body.append(_stochastic_depth(rate))) if skips else body)
            cin = cout
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))
    return nn.Sequential(*layers, _normed(cin, 1280, 1, act=nn.SiLU), *head)


def _squeeze_excite(channels: int, squeezed: int) -> Any:
    from torch import nn

    class SqueezeExcite(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            squeeze = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.SiLU()
            self.gate = nn.Sequential(*squeeze, nn.Conv2d(squeezed, channels, 1), nn.Sigmoid())

        def forward(self, x: Any) -> Any:
            return x * self.gate(x)

    return SqueezeExcite()


def _stochastic_depth(rate: float) -> Any:
    from torch import nn

    class StochasticDepth(nn.Module):  # Dropout of whole images
        def forward(self, x: Any) -> Any:
            return x * nn.functional.dropout(x.new_ones(len(x), 1, 1, 1), rate, self.training)

    return StochasticDepth()


def resnet50() -> Any:
    """He et al., 2015: bottlenecks of a quarter of the width, with the stride in the 3×3."""
    return _bottlenecks(width=64, widen=4, groups=1)


def resnext50() -> Any:
    """Xie et al., 2017, 32×4d: bottlenecks of half the width, whose 3×3 has 32 groups."""
    return _bottlenecks(width=128, widen=2, groups=32)


def _bottlenecks(width: int, widen: int, groups: int) -> Any:
    from torch import nn

    layers, cin = [_normed(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate((3, 4, 6, 3)):
        narrow, wide = width << stage, widen * width << stage
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            body = nn.Sequential(
                _normed(cin, narrow, 1, act=nn.ReLU), _normed(narrow, narrow, 3, stride, groups, nn.ReLU),
                _normed(narrow, wide, 1),
            )  # fmt: skip
            short = _normed(cin, wide, 1, stride) if i == 0 else None
            layers.append(_residual(body, short, nn.ReLU()))
            cin = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
