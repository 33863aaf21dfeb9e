"""A 5×5 input, a 3×3 kernel and nine outputs: small enough to check by eye.

The kernel is Sobel's for x: the right neighbours minus the left ones, the middle row counted twice, so
an output is positive where the input grows to the right.  At position (0, 0)

    1·(−1) + 2·0 + 0·1  +  0·(−2) + 1·0 + 2·2  +  2·(−1) + 0·0 + 1·1  =  2

All nine outputs differ, so that a transposed, flipped or shifted result shows.

>>> from jconv.textbook import conv2d_loops
>>> bool((conv2d_loops(INPUT[None, None], SOBEL_X[None, None]) == OUTPUT).all())
True
"""

import numpy as np

INPUT = np.array([[1, 2, 0, 2, 1],
                  [0, 1, 2, 2, 0],
                  [2, 0, 1, 2, 2],
                  [1, 2, 0, 0, 0],
                  [1, 2, 1, 0, 1]])  # fmt: skip
SOBEL_X = np.array([[-1, 0, 1],
                    [-2, 0, 2],
                    [-1, 0, 1]])  # fmt: skip
OUTPUT = np.array([[2, 4, -2],
                   [-1, 3, 0],
                   [-3, -4, 1]])  # fmt: skip
