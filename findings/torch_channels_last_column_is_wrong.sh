#!/usr/bin/env bash
# PyTorch 2.13.0 on CPU, float32, channels_last: conv2d of images of one column (time as the height) returns wrong
# values without a word, the same ones each time.  The numbers here are whole and small, so that float32 holds every
# sum exactly; results are off by more than a third of the largest.  It takes a tall kernel one wide and a number of
# channels that is above 16 and no multiple of it; the more channels and images, the shorter a kernel is enough.
# The same images lying on their side, in the usual memory format, with 48 channels, or with oneDNN switched off,
# are exact.  (oneDNN 3.x takes a kernel of its own for one column, which loses the channels that are left over.)
#
# Seen on an Intel Xeon with AVX-512 (December 2026), with the error and the largest result:
#
#     one column, channels_last    wrong by 600 of 1331
#     lying on its side            wrong by 0
#     channels first               wrong by 0
#     48 channels                  wrong by 0
#     without oneDNN               wrong by 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --only-binary :all: torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PY'
import torch

LAST = torch.channels_last


def wrong_by(channels=40, memory_format=LAST, axes=(0, 1, 2, 3), onednn=True):
    """The largest error of whole numbers, and the largest result."""
    torch.manual_seed(0)
    x = torch.randint(-3, 4, (8, channels, 202, 1)).float().permute(axes)
    w = torch.randint(-3, 4, (64, channels, 200, 1)).float().permute(axes)
    exact = torch.nn.functional.conv2d(x.double(), w.double())
    with torch.backends.mkldnn.flags(enabled=onednn):
        y = torch.nn.functional.conv2d(x.contiguous(memory_format=memory_format), w.contiguous())
    return int((y.double() - exact).abs().max()), int(exact.abs().max())


error, largest = wrong_by()
print("torch", torch.__version__)
print(f"one column, channels_last    wrong by {error} of {largest}")
exact = {
    "lying on its side": wrong_by(axes=(0, 1, 3, 2)),
    "channels first": wrong_by(memory_format=torch.contiguous_format),
    "48 channels": wrong_by(channels=48),
    "without oneDNN": wrong_by(onednn=False),
}
for name, (none, _) in exact.items():
    print(f"{name:28} wrong by {none}")
    assert none == 0, "was exact"
assert error > largest / 3, "was wrong"
PY
