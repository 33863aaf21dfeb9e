"""Two processes with two devices each, on loopback: training equals one process, and a death is noticed."""

import functools
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_process
from jax import lax

import jconv
from jconv.algorithms import ALGORITHMS
from jconv.spec.tolerance import tolerance

SCRIPT = Path(training_process.__file__)
LIMIT = 300  # seconds; a hang is killed and fails


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


def run_two(result, *extra):
    """Return codes and messages of two processes, both gone when this returns."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", port, str(result), *extra],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        messages = [process.communicate(timeout=LIMIT)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], messages


def test_two_processes_train_as_one(tmp_path):
    result = tmp_path / "trained.npz"
    codes, messages = run_two(result)
    assert codes == [0, 0], messages
    trained = np.load(result)
    assert trained["devices"] == 4
    alone = training_process.alone()
    for parallel in (range(3), range(3, 6)):  # data-parallel, spatially parallel: the loss and two kernels
        for index, desired in zip(parallel, alone, strict=True):
            error = np.abs(trained[f"arr_{index}"] - desired).max() / np.abs(desired).max()
            assert error <= tolerance("float32", 4 * 16 * 6, amplification=8.0)  # two steps, two layers


def test_a_process_that_dies_gives_the_other_an_error(tmp_path):
    codes, messages = run_two(tmp_path / "never.npz", "--die")
    assert codes[1] == 7
    assert codes[0] not in (0, None)
    clear = ("Gloo", "heartbeat", "coordination service")
    assert any(word in messages[0] for word in clear), messages[0]
    assert not (tmp_path / "never.npz").exists()


def _worked(packed, *operands):
    """In a process of the pool: the result, and whether lax's convolution is left in the program."""
    fast = pickle.loads(packed)
    return np.asarray(fast(*operands)), "stablehlo.convolution" in jax.jit(fast).lower(*operands).as_text()


def _by_products(x, w, spec):
    return ALGORITHMS["im2col"].forward(x, w, spec)


def test_accelerated_functions_are_sent_to_a_pool_of_processes():
    """Closures by cloudpickle, as pools of today send them, to processes that start from nothing."""
    cloudpickle = pytest.importorskip("cloudpickle", reason="needs the extra [models]")
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 8, 7), "float32"), rng.standard_normal((4, 3, 3, 2), "float32")
    shift = 1.5  # held by a closure
    plain = lambda x, w: jnp.tanh(lax.conv(x, w, (2, 1), "SAME")) + shift  # noqa: E731
    ways = [
        jconv.accelerate(plain, "im2col"), jconv.accelerate(jax.jit(plain), "im2col"),
        jconv.accelerate(plain, jconv.Algorithm("mine", _by_products)),
        functools.partial(jconv.accelerate(plain, "im2col"), x),
    ]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        calls = [(cloudpickle.dumps(fast), *operands(fast, x, w)) for fast in ways]
        results = pool.starmap_async(_worked, calls).get(LIMIT)
    for found, left in results:
        np.testing.assert_allclose(found, plain(x, w), rtol=0, atol=2 * tolerance("float32", 18))
        assert not left


def operands(fast, x, w):
    return (w,) if isinstance(fast, functools.partial) else (x, w)
