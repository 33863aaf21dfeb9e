"""2. Strides make windows: all patches at once without copying a number.

An array is memory and a rule for walking it.  Let two axes walk along the same dimension and every
patch is there, though nothing has been copied.
"""

import numpy as np

from jconv import textbook

x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
view = textbook.patch_view(x, 3)
print(f"x        shape {x.shape}, strides in bytes {x.strides}")
print(f"patches  shape {view.shape}, strides in bytes {view.strides}")
print("p and r take the same step, and so do q and s: the patch below is one p further down, or one r\n")
assert view.strides[2] == view.strides[4]
assert view.strides[3] == view.strides[5]

seen = np.zeros(25, int)
np.add.at(seen, view.astype(int).reshape(-1), 1)  # x counts its own places
print(f"{view.size} numbers are to be seen in {x.size} places; how many windows each place lies in:")
print(seen.reshape(5, 5))
assert seen.sum() == view.size
print(f"so such a view is for reading; is it writeable? {view.flags.writeable}\n")

# What goes wrong otherwise: the same view of five numbers, this time writeable, on purpose.
row = np.arange(1, 6)
windows = np.lib.stride_tricks.sliding_window_view(row, 3, writeable=True)
print(f"five numbers {row} and their windows of three\n{windows}")
windows[0] = 0  # meant for the first window
print(f"write 0 to the first window only, and two others have changed, and so has the input {row}\n{windows}")
total, due = np.zeros(5, int), np.array([1, 2, 3, 2, 1])
windows = np.lib.stride_tricks.sliding_window_view(total, 3, writeable=True)
windows += 1  # meant to add 1 to each place once for every window it lies in, as a gradient has to
lost = due.sum() - total.sum()
print(f"add 1 through every window: {due} was due, {total} is there, {lost} additions are lost")
try:
    view[0, 0, 0, 0] = 0
except ValueError as refusal:
    print(f"the textbook's view refuses to be written to: {refusal}\n")

large = np.zeros((8, 64, 56, 56), np.float32)
patches = textbook.patch_view(large, 3, padding=0)
copied = textbook.im2col_view(large, 3)
print(f"for 8 images of 64 channels, 56×56 ({large.nbytes / 2**20:.1f} MiB), 3×3 patches cost")
print(f"  as a view     0 bytes more (shares memory: {np.shares_memory(patches, large)})")
print(f"  as columns    {copied.nbytes / 2**20:.1f} MiB, {copied.nbytes / large.nbytes:.1f} times the input")

strided = textbook.patch_view(x, 2, stride=2, dilation=2)
print(f"\nstride and dilation only lengthen the steps: stride 2, dilation 2 gives {strided.strides}")
print(f"its first patch, two places apart:\n{strided[0, 0, 0, 0]}")

without, padded = (
    textbook.patch_view(np.zeros((1, 1, 28, 28)), 3, stride=2, padding=padding).shape[2:4]
    for padding in (0, 1)
)
print(f"\n28×28 under a kernel of 3 at stride 2: {without} windows, with a padding of 1 {padded}")
