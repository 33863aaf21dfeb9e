"""Runs `mesh_checks.py` with eight simulated devices, which only a process of its own can have."""

import os
import subprocess
import sys
from pathlib import Path

from jconv.__main__ import main as command_line
from jconv.bench import scaling

CHECKS = Path(__file__).with_name("mesh_checks.py")


def test_on_eight_devices():
    environment = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    alone = ["-n0", "-p", "no:cacheprovider"]  # the other cores have tests of their own
    command = [sys.executable, "-m", "pytest", "-q", *alone, "--tb=short", str(CHECKS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_scaling_prints_where_sending_overtakes(capsys):
    assert command_line(["scaling", "--link", "50", "--tflops", "50"]) == 0
    page = capsys.readouterr().out
    assert all(name in page for name in scaling.NETWORKS)
    assert page.count("   4096 ") == 6
    assert "sending overtakes computing at 128 devices" in page
    assert "23.5 M kernel values" in page  # ResNet-50 without its classifier
