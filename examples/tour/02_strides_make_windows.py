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
print(f"so such a view is for reading: the middle would be written {seen.max()} times, and one stays.")
print(f"is it writeable? {view.flags.writeable}\n")

large = np.zeros((8, 64, 56, 56), np.float32)
patches = textbook.patch_view(large, 3, padding=0)
copied = textbook.im2col_view(large, 3)
print(f"for 8 images of 64 channels, 56×56 ({large.nbytes / 2**20:.1f} MiB), 3×3 patches cost")
print(f"  as a view     0 bytes more (shares memory: {np.shares_memory(patches, large)})")
print(f"  as columns    {copied.nbytes / 2**20:.1f} MiB, {copied.nbytes / large.nbytes:.1f} times the input")

strided = textbook.patch_view(x, 2, stride=2, dilation=2)
print(f"\nstride and dilation only lengthen the steps: stride 2, dilation 2 gives {strided.strides}")
print(f"its first patch, two places apart:\n{strided[0, 0, 0, 0]}")
