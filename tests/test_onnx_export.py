"""Programs on jconv are exported to ONNX as what they are: lax's, or Keras's, and run by ONNX's own runtime.

jconv's own functions bind primitives that the exporter has no rule for; it says so by name.
"""

import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv.spec.tolerance import tolerance

jax2onnx = pytest.importorskip("jax2onnx", reason="exports JAX programs to ONNX")
runtime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 9, 8), "float32")
W = jnp.asarray(RNG.standard_normal((4, 3, 3, 2), "float32"))


def layer(x):
    return jnp.tanh(lax.conv_general_dilated(x, W, (2, 1), "SAME"))


WAYS = {
    "plain": (layer, contextlib.nullcontext),
    "accelerated": (jconv.accelerate(layer), contextlib.nullcontext),
    "jit inside": (jconv.accelerate(jax.jit(layer)), contextlib.nullcontext),
    "jit outside": (jax.jit(jconv.accelerate(layer)), contextlib.nullcontext),
    "context": (layer, jconv.accelerated),
    "installed": (layer, jconv.installed),
}


def run(path, x):
    session = runtime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def assert_close(got, wanted):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance("float32", 100) * np.abs(wanted).max())


@pytest.mark.parametrize("way", WAYS)
def test_jax2onnx(way, tmp_path):
    fun, context = WAYS[way]
    like = [jax.ShapeDtypeStruct(X.shape, "float32")]
    with context():
        jax2onnx.to_onnx(fun, inputs=like, return_mode="file", output_path=str(tmp_path / "layer.onnx"))
    assert_close(run(tmp_path / "layer.onnx", X), layer(X))


def test_own_functions_are_refused_by_name():
    own = lambda x: jconv.conv2d(x, W, stride=(2, 1), padding="same")  # noqa: E731
    with pytest.raises(NotImplementedError, match="jconv_forward"):
        jax2onnx.to_onnx(own, inputs=[jax.ShapeDtypeStruct(X.shape, "float32")])


@pytest.mark.parametrize("way", [contextlib.nullcontext, jconv.accelerated, jconv.installed])
def test_keras(way, tmp_path):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend")
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((9, 8, 3)), layers.Conv2D(4, 3, activation="relu"),
        layers.DepthwiseConv2D(3, padding="same"), layers.Conv2DTranspose(2, 2, strides=2),
    ])  # fmt: skip
    x = X.transpose(0, 2, 3, 1)
    wanted = model(x)
    with way():
        model.export(str(tmp_path / "model.onnx"), format="onnx", verbose=False)
    assert_close(run(tmp_path / "model.onnx", x), wanted)
