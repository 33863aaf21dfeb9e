"""Two processes with two devices each, on loopback: training equals one process, and a death is noticed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import training_process

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
