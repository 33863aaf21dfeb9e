"""The models of sequences, in PyTorch: WaveNet and the block of Mamba."""

from typing import Any


def wavenet() -> Any:
    """Van den Oord et al., 2016: gated, causal, dilated, with skip connections.

    The last layer's residual leads nowhere.  XLA leaves it out; eager PyTorch computes it, 1 % of the work.
    """
    from torch import nn
    from torch.nn.functional import pad

    layers, channels = 20, 64

    class Layer(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.dilation, self.gates = dilation, nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
            self.skip, self.residual = (nn.Conv1d(channels, channels, 1) for _ in range(2))

        def forward(self, x: Any) -> tuple[Any, Any]:
            tanh, sigmoid = self.gates(pad(x, (self.dilation, 0))).chunk(2, dim=1)
            gated = tanh.tanh() * sigmoid.sigmoid()
            return x + self.residual(gated), self.skip(gated)

    class WaveNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Conv1d(1, channels, 1), nn.Conv1d(channels, 1, 1)
            self.layers = nn.ModuleList(Layer(2 ** (i % 10)) for i in range(layers))

        def forward(self, x: Any) -> Any:
            x, skips = self.into(x), 0
            for layer in self.layers:
                x, skip = layer(x)
                skips = skips + skip
            return self.out(nn.functional.relu(skips))

    return WaveNet()


def mamba() -> Any:
    """The block of Gu & Dao, 2023: a causal depthwise convolution before a selective scan."""
    from torch import nn
    from torch.nn.functional import silu

    width, depth = 256, 4

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.into = nn.LayerNorm(width), nn.Linear(width, 4 * width)
            self.conv = nn.Conv1d(2 * width, 2 * width, 4, padding=3, groups=2 * width)
            self.rate, self.out = (nn.Linear(2 * width, size) for size in (2 * width, width))

        def forward(self, x: Any) -> Any:
            u, gate = self.into(self.norm(x)).chunk(2, dim=-1)
            causal = self.conv(u.mT)[..., : x.shape[1]]  # padded on both sides; what looks ahead goes
            u = silu(causal.mT)
            keep = self.rate(u).sigmoid()
            return x + self.out(scan(keep, (1 - keep) * u) * silu(gate))

    return nn.Sequential(*(Block() for _ in range(depth)))


def scan(keep: Any, new: Any) -> Any:
    """The states s[t] = keep[t] * s[t - 1] + new[t] along axis 1, from 0; its length is a power of two.

    By halves, as `jax.lax.associative_scan` does it: two steps are one step of the same kind, with
    keep' = keep[t] * keep[t - 1] and new' = keep[t] * new[t - 1] + new[t].  A loop over time, as in Mamba's
    reference code, needs as many calls as there are steps; this needs some six per halving.
    """
    import torch

    if keep.shape[1] == 1:
        return new
    keep_even, keep_odd, new_even, new_odd = keep[:, ::2], keep[:, 1::2], new[:, ::2], new[:, 1::2]
    odd = scan(keep_odd * keep_even, torch.addcmul(new_odd, keep_odd, new_even))
    even = torch.cat([new[:, :1], torch.addcmul(new_even[:, 1:], keep_even[:, 1:], odd[:, :-1])], dim=1)
    return torch.stack([even, odd], dim=2).flatten(1, 2)
