"""PyTorch's part in a race: the same convolution and its gradients on the same numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jconv.spec import ConvSpec, Ints, Role


@dataclasses.dataclass(frozen=True)
class TorchCall:
    """What is timed, and what it computes as a NumPy array in the layout asked for."""

    call: Callable[[], Any]
    result: Callable[[], np.ndarray]


def calls(
    spec: ConvSpec, role: Role, layout: str, arrays: tuple[jax.Array, jax.Array, jax.Array]
) -> TorchCall | None:
    """PyTorch's way to `role` of `spec`, or None without PyTorch or where it has no such convolution.

    For layout "NHWC" and two dimensions its tensors are in its `channels_last` memory format.
    """
    try:
        import torch
    except ImportError:
        return None
    if not _has(spec):
        return None
    last = layout == "NHWC"
    x, w, g = (np.asarray(array) for array in arrays)
    if last:
        x, g = np.moveaxis(x, -1, 1), np.moveaxis(g, -1, 1)
        w = w.transpose(spec.ndim + 1, spec.ndim, *range(spec.ndim))
    tensors = [_tensor(torch, v, last) for v in (x, _swapped(w, spec), g)]
    call = _pass(torch, spec, role, *tensors)

    def result() -> np.ndarray:
        found = call().detach().numpy()
        if role == "grad_kernel":
            found = _swapped(found, spec)
            return found.transpose(*range(2, spec.ndim + 2), 1, 0) if last else found
        return np.moveaxis(found, 1, -1) if last else found

    return TorchCall(call, result)


def _is_transposed(spec: ConvSpec) -> bool:
    return any(d != 1 for d in spec.lhs_dilation)


def _has(spec: ConvSpec) -> bool:
    """Whether PyTorch can say it: one to three dimensions; an input dilation is its conv_transpose."""
    if not 1 <= spec.ndim <= 3 or any(p < 0 for pair in spec.padding for p in pair):
        return False
    if not _is_transposed(spec):
        return True
    low, more = _transposed_padding(spec)
    fits = all(p >= 0 and 0 <= m < d for p, m, d in zip(low, more, spec.lhs_dilation, strict=True))
    return fits and spec.groups == 1 and all(s == 1 for s in spec.strides)


def _transposed_padding(spec: ConvSpec) -> tuple[Ints, Ints]:
    """PyTorch's padding K − 1 − lo and output_padding hi − lo."""
    low = tuple(k - 1 - lo for k, (lo, _) in zip(spec.window, spec.padding, strict=True))
    return low, tuple(hi - lo for lo, hi in spec.padding)


def _swapped(w: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """(o, c, *taps) as conv_transpose's (c, o, *−taps), and back; of a plain convolution w itself."""
    return np.flip(w.swapaxes(0, 1), tuple(range(2, w.ndim))) if _is_transposed(spec) else w


def _tensor(torch: Any, array: np.ndarray, last: bool) -> Any:
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor.to(memory_format=torch.channels_last) if last and tensor.ndim == 4 else tensor


def _pass(torch: Any, spec: ConvSpec, role: Role, x: Any, w: Any, g: Any) -> Callable[[], Any]:
    """The forward without a tape; a gradient as the backward of a forward computed once."""

    def quietly() -> Any:
        with torch.inference_mode():
            return _forward(torch, spec, x, w)

    if role == "forward":
        return quietly
    wanted = (x if role == "grad_input" else w).requires_grad_()
    y = _forward(torch, spec, x, w)
    return lambda: torch.autograd.grad(y, wanted, g, retain_graph=True)[0]


def _forward(torch: Any, spec: ConvSpec, x: Any, w: Any) -> Any:
    functions = torch.nn.functional
    if _is_transposed(spec):
        low, more = _transposed_padding(spec)
        conv = getattr(functions, f"conv_transpose{spec.ndim}d")
        return conv(x, w, None, spec.lhs_dilation, low, more, spec.groups, spec.rhs_dilation)
    low = tuple(lo for lo, _ in spec.padding)
    if any(lo != hi for lo, hi in spec.padding):
        x = functions.pad(x, [p for pair in reversed(spec.padding) for p in pair])
        low = (0,) * spec.ndim
    conv = getattr(functions, f"conv{spec.ndim}d")
    return conv(x, w, None, spec.strides, low, spec.rhs_dilation, spec.groups)
