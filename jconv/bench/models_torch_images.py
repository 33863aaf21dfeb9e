"""The models that give images, in PyTorch: U-Nets and the generator of DCGAN."""

import itertools
from typing import Any


def unet() -> Any:
    """Ronneberger et al., 2015, with transposed convolutions that do not overlap."""
    return _unet(2, 3, (32, 64, 128, 256), up=dict(kernel_size=2, stride=2))


def unet3d() -> Any:
    """Çiçek et al., 2016, with transposed convolutions that overlap by half."""
    return _unet(3, 1, (16, 32, 64), up=dict(kernel_size=4, stride=2, padding=1))


def _unet(ndim: int, cin: int, widths: tuple[int, ...], up: dict[str, int]) -> Any:
    import torch
    from torch import nn

    Conv, ConvTranspose, MaxPool = (
        getattr(nn, f"{layer}{ndim}d") for layer in ("Conv", "ConvTranspose", "MaxPool")
    )

    def double(cin: int, cout: int) -> Any:
        halves = ((Conv(c, cout, 3, padding=1), nn.GroupNorm(2, cout), nn.ReLU()) for c in (cin, cout))
        return nn.Sequential(*itertools.chain(*halves))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            *levels, bottom = widths
            wider = (*levels[1:], bottom)
            self.down = nn.ModuleList(map(double, (cin, *levels), levels))
            self.bottom, self.pool = double(levels[-1], bottom), MaxPool(2)
            self.up = nn.ModuleList(ConvTranspose(w, n, **up) for w, n in zip(wider, levels, strict=True))
            self.merge = nn.ModuleList(double(2 * n, n) for n in levels)
            self.head = Conv(levels[0], 2, 1)

        def forward(self, x: Any) -> Any:
            skips = []
            for down in self.down:
                skips.append(down(x))
                x = self.pool(skips[-1])
            x = self.bottom(x)
            for up, merge, skip in reversed([*zip(self.up, self.merge, skips, strict=True)]):
                x = merge(torch.cat([up(x), skip], dim=1))
            return self.head(x)

    return UNet()


def dcgan() -> Any:
    """The generator of Radford et al., 2015: five transposed convolutions."""
    from torch import nn

    layers: list[Any] = []
    for cin, cout, kernel, stride, pad in (
        (100, 512, 4, 1, 0), (512, 256, 4, 2, 1), (256, 128, 4, 2, 1), (128, 64, 4, 2, 1)
    ):  # fmt: skip
        up = nn.ConvTranspose2d(cin, cout, kernel, stride, pad, bias=False)
        layers += [up, nn.GroupNorm(1, cout), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh())
