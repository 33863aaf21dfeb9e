"""The models in PyTorch that the race runs against are the same models."""

import os

import jax
import numpy as np
import pytest

from jconv.bench.models import named
from jconv.bench.models_torch import TWINS
from jconv.bench.models_torch_sequences import scan
from jconv.spec.tolerance import tolerance

os.environ.setdefault("KERAS_BACKEND", "jax")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries
torch = pytest.importorskip("torch")
for _library in ("flax", "equinox", "haiku", "keras"):
    pytest.importorskip(_library, reason="needs the extra [models]")


def shapes_in_jax(name):
    """Of the parameters, an input and an output."""
    made = []

    def params():
        made.append(named(name).build(True))
        return made[0].params

    # keras keeps what it initialises, so it must not be traced; the others compute nothing this way.
    params = params() if named(name).library == "keras" else jax.eval_shape(params)
    built = made[0]
    x = jax.ShapeDtypeStruct((1, *built.shape), "float32")
    y = jax.eval_shape(built.apply, params, x)
    return [leaf.shape for leaf in jax.tree.leaves(params)], x.shape, y.shape


def shapes_in_torch(name):
    with torch.device("meta"):
        net, x = TWINS[name].build(), torch.empty(1, *TWINS[name].shape)
    return [tuple(p.shape) for p in net.parameters()], tuple(x.shape), tuple(net(x).shape)


QUICK = [name for name in TWINS if named(name).library != "keras"]  # to build


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TWINS]
)
def test_as_many_parameters_of_every_size_and_outputs_as_large(name):
    ours, theirs = shapes_in_jax(name), shapes_in_torch(name)
    assert sorted(map(np.prod, ours[0])) == sorted(map(np.prod, theirs[0]))
    for channels_last, channels_first in zip(ours[1:], theirs[1:], strict=True):
        assert sorted(channels_last) == sorted(channels_first)


def test_the_scan_by_halves_is_the_loop_over_time():
    keep, new = np.random.default_rng(0).random((2, 3, 16, 5), "float32")
    state, states = np.zeros((3, 5)), []
    for t in range(16):
        state = keep[:, t] * state + new[:, t]
        states.append(state)
    got = scan(torch.tensor(keep), torch.tensor(new)).numpy()
    np.testing.assert_allclose(got, np.stack(states, 1), rtol=tolerance("float32", 16))
