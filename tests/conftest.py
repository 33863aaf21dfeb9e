"""Fixtures and hypothesis profiles for all tests, and how their programs are compiled."""

import os

import compiling
import jax
import pytest
from hypothesis import HealthCheck, settings

from jconv.runtime import store

store.use(None)  # what somebody tuned on this machine must not decide what is tested

slow_to_compile = dict(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("ci", max_examples=10, derandomize=True, database=None, **slow_to_compile)
settings.register_profile("deep", max_examples=500, **slow_to_compile)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

compiling.at_once()


@pytest.fixture
def x64():
    """64-bit types for the length of one test."""
    with jax.enable_x64(True):
        yield
