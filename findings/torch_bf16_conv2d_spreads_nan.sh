#!/usr/bin/env bash
# PyTorch 2.13.0 on CPU, bfloat16, NCHW, an odd number of input channels, a kernel wider than one: a NaN in the
# last channel of one pixel reaches outputs whose windows do not hold that pixel.  An output one pixel past the
# last window is NaN, too.  With an even number of channels, in channels_last or in float32 only the windows
# that hold it are NaN, as the sum says.
#
# A layer that meets one bad pixel spoils more of the image than its kernel is wide, depending on whether the
# number of channels is odd and on the memory format.  (oneDNN pairs channels of bfloat16: the last one is
# paired with its neighbour in memory times a zero, and 0·NaN is NaN.)
#
# Seen on an Intel Xeon with AVX-512, without AVX512-BF16 and AMX (November 2026):
#
#     bfloat16 3 channels NCHW           12 NaN, 9 in windows that hold it
#     bfloat16 4 channels NCHW           9 NaN, 9 in windows that hold it
#     bfloat16 3 channels channels_last  9 NaN, 9 in windows that hold it
#     float32  3 channels NCHW           9 NaN, 9 in windows that hold it
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch

torch.manual_seed(0)


def counted(dtype, channels, memory_format):
    """How many outputs are NaN, and how many of them see the pixel that is."""
    x = torch.randn(1, channels, 9, 9).to(dtype)
    w = torch.randn(1, channels, 3, 3).to(dtype)
    x[0, -1, 4, 4] = float("nan")
    y = torch.nn.functional.conv2d(x.to(memory_format=memory_format), w, padding=1)
    is_nan = torch.isnan(y.float())[0, 0]
    return int(is_nan.sum()), int(is_nan[3:6, 3:6].sum())


rows = [
    ("bfloat16", 3, "NCHW", (12, 9)),
    ("bfloat16", 4, "NCHW", (9, 9)),
    ("bfloat16", 3, "channels_last", (9, 9)),
    ("float32", 3, "NCHW", (9, 9)),
]
formats = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
print("torch", torch.__version__)
for dtype, channels, order, seen in rows:
    found = counted(getattr(torch, dtype), channels, formats[order])
    print(f"{dtype:8} {channels} channels {order:13}  {found[0]} NaN, {found[1]} in windows that hold it")
    assert found == seen, f"was {seen}"
PY
