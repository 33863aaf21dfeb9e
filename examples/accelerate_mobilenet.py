"""One line makes an existing model fast: Keras's MobileNetV2, unchanged, on jconv.

    pip install 'jconv[models]'
    python examples/accelerate_mobilenet.py [batch]

The model is keras.applications' own; the training step is what anybody would write.  The one line that
is different is marked.
"""

import os
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras

import jconv


def train_step_of(model):
    """Cross-entropy and plain gradient descent, as a pure function."""
    state = [v.value for v in model.non_trainable_variables]

    def loss(params, x, labels):
        logits, _ = model.stateless_call(params, state, x, training=True)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])

    def train_step(params, x, labels):
        value, grads = jax.value_and_grad(loss)(params, x, labels)
        return value, [p - 0.01 * g for p, g in zip(params, grads, strict=True)]

    return train_step


def timed(step, *args, rounds=5):
    """The loss, and the best of a few times in milliseconds."""
    value, _ = jax.block_until_ready(step(*args))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(step(*args))
        times.append(time.perf_counter() - start)
    return float(value), 1e3 * min(times)


def main(batch=1, size=224):
    """One training step, timed before and after."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((size, size, 3), weights=None, classifier_activation=None)
    params = [v.value for v in model.trainable_variables]
    x = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
    labels = jnp.arange(batch) % 1000
    train_step = train_step_of(model)

    fast_step = jconv.accelerate(train_step)  # <- the one line

    table = jconv.explain(train_step, params, x, labels)
    longest = sorted(table, key=lambda row: -row.count * (row.lax_seconds or 0))[:5]
    print("the five convolutions that cost lax most:")
    for row in longest:
        print(f"  {row.count}× {row.role:11} {row.spec} -> {row.algorithm}")
    print(table.summary)

    plain_loss, plain = timed(jax.jit(train_step), params, x, labels)
    fast_loss, fast = timed(jax.jit(fast_step), params, x, labels)
    print(f"plain       {plain:8.1f} ms a training step, loss {plain_loss:.5f}")
    gain = f"{plain / fast:.1f} times faster"
    print(f"accelerated {fast:8.1f} ms a training step, loss {fast_loss:.5f}, {gain}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
