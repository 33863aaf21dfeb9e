"""Small kernels with names, as the page's list and the command line's `--kernel` know them."""

NINTH, SIXTEENTH = 1 / 9, 1 / 16

NAMED: dict[str, list[list[float]]] = {
    "sobel-x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "sobel-y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "box-blur": [[NINTH] * 3] * 3,
    "gaussian": [[a * b * SIXTEENTH for b in (1, 2, 1)] for a in (1, 2, 1)],
    "laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}

MEANING = {
    "sobel-x": "Sobel X: right minus left, so it answers to vertical edges",
    "sobel-y": "Sobel Y: below minus above, so it answers to horizontal edges",
    "sharpen": "Sharpen: the pixel, plus how far it stands out from its four neighbours",
    "box-blur": "Box blur: the mean of the nine",
    "gaussian": "Gaussian blur: a mean that trusts the centre most",
    "laplacian": "Laplacian: neighbours minus four times the centre; 0 wherever the image is a plane",
    "emboss": "Emboss: lower right minus upper left, added to the image",
    "identity": "Identity: the image itself",
}
