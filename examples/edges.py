"""Edges and other things a 3×3 kernel sees in a photograph: `python edges.py [folder]`.

Takes one of scikit-learn's two sample photographs, runs a bank of kernels over it and writes a picture
for each, and all of them side by side in `sheet.png`.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

import jconv

SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
KERNELS = {
    "sobel_x": SOBEL_X,
    "sobel_y": SOBEL_X.T,
    "diagonal": np.array([[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]),
    "laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "emboss": np.array([[-1, 0, 0], [0, 0, 0], [0, 0, 1]]),  # as if lit from the upper left
}
BINOMIAL = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1]) / 256  # a row of Pascal's triangle: nearly Gaussian
LUMA = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue seem (ITU-R BT.601)


def photograph(name: str) -> jax.Array:
    """The photograph as (3, h, w) with values from 0 to 1."""
    return jnp.asarray(load_sample_image(name).transpose(2, 0, 1), jnp.float32) / 255


def gray(photo: jax.Array) -> jax.Array:
    """(3, h, w) → (1, h, w): a 1×1 convolution is a matrix product over the channels."""
    return jconv.conv2d(photo, jnp.asarray(LUMA, jnp.float32).reshape(1, 3, 1, 1))


def edges(photo: jax.Array) -> dict[str, jax.Array]:
    """One convolution with a kernel per output channel, and the length of the gradient from two of them."""
    bank = jnp.asarray(np.stack(list(KERNELS.values())), jnp.float32)[:, None]
    found = jconv.conv2d(gray(photo), bank, padding=1, padding_mode="replicate")
    seen = dict(zip(KERNELS, found, strict=True))
    return seen | {"edges": jnp.hypot(seen["sobel_x"], seen["sobel_y"])}


def blurred(photo: jax.Array) -> jax.Array:
    """Each colour by itself is a depthwise convolution; rows, then columns, costs 9 + 9 and not 81."""
    row = jnp.broadcast_to(jnp.asarray(BINOMIAL, jnp.float32), (3, 1, 1, 9))
    once = jconv.conv2d(photo, row, groups=3, padding=(0, 4), padding_mode="reflect")
    return jconv.conv2d(once, row.swapaxes(2, 3), groups=3, padding=(4, 0), padding_mode="reflect")


def pictures(photo: jax.Array) -> dict[str, np.ndarray]:
    """Every result as 8-bit gray (h, w) or colour (h, w, 3)."""
    found, soft = edges(photo), blurred(photo)
    return {
        "photograph": colour(photo),
        **{name: signed(found[name]) for name in KERNELS},
        "edges": bytes_of(found["edges"] / jnp.percentile(found["edges"], 99.5)),
        "blurred": colour(soft),
        "sharpened": colour(photo + 1.5 * (photo - soft)),
    }


def bytes_of(values: jax.Array) -> np.ndarray:
    """0 to 1 as 0 to 255."""
    return np.asarray(jnp.round(255 * jnp.clip(values, 0, 1)), np.uint8)


def signed(values: jax.Array) -> np.ndarray:
    """Zero as middle gray; the strongest 0.5 % of either sign run into black and white."""
    return bytes_of(0.5 + 0.5 * values / jnp.percentile(abs(values), 99.5))


def colour(photo: jax.Array) -> np.ndarray:
    """(3, h, w) as bytes (h, w, 3)."""
    return bytes_of(photo).transpose(1, 2, 0)


def sheet(named: dict[str, Image.Image], across: int = 3) -> Image.Image:
    """All pictures at half size with their names, row by row."""
    width, height = (side // 2 for side in next(iter(named.values())).size)
    page = Image.new("RGB", (across * width, -(-len(named) // across) * height))
    for i, (name, picture) in enumerate(named.items()):
        corner = (i % across * width, i // across * height)
        page.paste(picture.convert("RGB").resize((width, height)), corner)
        label = ImageDraw.Draw(page)
        label.text((corner[0] + 8, corner[1] + 6), name, fill="white", stroke_width=2, stroke_fill="black")
    return page


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("edges"), help="where to write (edges/)")
    parser.add_argument("--image", choices=["china.jpg", "flower.jpg"], default="china.jpg")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found = {name: Image.fromarray(a) for name, a in pictures(photograph(args.image)).items()}
    for name, picture in {**found, "sheet": sheet(found)}.items():
        picture.save(args.folder / f"{name}.png")
        print(f"{args.folder / name}.png  {picture.width}×{picture.height}")


if __name__ == "__main__":
    main()
