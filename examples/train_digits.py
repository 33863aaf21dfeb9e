"""A small network learns to read digits: `python train_digits.py [--epochs 25]`.

scikit-learn's 1797 handwritten digits of 8×8, a quarter of them kept aside for the test.  Two
convolutions and a matrix product, trained with Adam; every gradient goes through jconv's backward pass
written by hand.  Ends with an error if the test accuracy stays under 97 %.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jconv

Params = dict[str, jax.Array]
DECAY, DECAY_SQUARE, TINY = 0.9, 0.999, 1e-8
BATCH, RATE = 64, 4e-3


def digits() -> list[np.ndarray]:
    """Images (n, 8, 8, 1) from 0 to 1 and labels (n,): train and test of each."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    return train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)


def start(seed: int) -> Params:
    """Kernels drawn so that the size of the numbers stays the same from layer to layer (He et al., 2015)."""
    shapes = {"w1": (3, 3, 1, 16), "w2": (3, 3, 16, 32), "w3": (4 * 4 * 32, 10)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    kernels = {
        name: jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1]))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return kernels | {f"b{name[1]}": jnp.zeros(shape[-1]) for name, shape in shapes.items()}


def scores(params: Params, x: jax.Array) -> jax.Array:
    """(n, 8, 8, 1) → (n, 10): one score for each digit."""
    x = jax.nn.relu(jconv.conv2d(x, params["w1"], params["b1"], padding=1, layout="NHWC"))
    x = jax.nn.relu(jconv.conv2d(x, params["w2"], params["b2"], padding=1, stride=2, layout="NHWC"))
    return x.reshape(len(x), -1) @ params["w3"] + params["b3"]


def loss(params: Params, x: jax.Array, digit: jax.Array) -> jax.Array:
    """Mean surprise at the right digit."""
    surprise = -jax.nn.log_softmax(scores(params, x))
    return jnp.take_along_axis(surprise, digit[:, None], axis=1).mean()


@jax.jit
def step(
    params: Params, memory: Any, x: jax.Array, digit: jax.Array, rate: float
) -> tuple[Params, Any, jax.Array]:
    """One step of Adam: the mean gradient over the root of its mean square (Kingma & Ba, 2015)."""
    now, grads = jax.value_and_grad(loss)(params, x, digit)
    count, mean, square = memory
    count = count + 1
    mean = jax.tree.map(lambda m, g: DECAY * m + (1 - DECAY) * g, mean, grads)
    square = jax.tree.map(lambda v, g: DECAY_SQUARE * v + (1 - DECAY_SQUARE) * g**2, square, grads)
    # both means start at zero; divided by the weight they have gathered they are unbiased
    first, second = 1 - DECAY**count, 1 - DECAY_SQUARE**count
    params = jax.tree.map(
        lambda p, m, v: p - rate * (m / first) / (jnp.sqrt(v / second) + TINY), params, mean, square
    )
    return params, (count, mean, square), now


@jax.jit
def accuracy(params: Params, x: jax.Array, digit: jax.Array) -> jax.Array:
    """Share of digits with the highest score on the right one."""
    return (scores(params, x).argmax(1) == digit).mean()


def train(epochs: int, seed: int = 0) -> float:
    """Accuracy on the test digits after so many passes over the others, in ever smaller steps."""
    x, x_test, digit, digit_test = digits()
    rng, params = np.random.default_rng(seed), start(seed)
    zeros = jax.tree.map(jnp.zeros_like, params)
    memory = (0, zeros, zeros)
    test_accuracy = 0.0
    whole = len(x) // BATCH * BATCH  # what does not fill a batch waits for the next shuffle
    for epoch in range(epochs):
        losses, rate = [], RATE * (1 - epoch / epochs)
        for chosen in rng.permutation(len(x))[:whole].reshape(-1, BATCH):
            params, memory, now = step(params, memory, x[chosen], digit[chosen], rate)
            losses.append(now)
        test_accuracy = float(accuracy(params, x_test, digit_test))
        print(f"epoch {epoch + 1:2d}  loss {np.mean(losses):.4f}  test accuracy {test_accuracy:.1%}")
    return test_accuracy


def main() -> None:
    """Train, and fail if the network has not learned to read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    begin = time.perf_counter()
    reached = train(parser.parse_args().epochs)
    print(f"{reached:.1%} of the test digits read after {time.perf_counter() - begin:.1f} s")
    assert reached >= 0.97, f"{reached:.1%} is less than 97 %"


if __name__ == "__main__":
    main()
