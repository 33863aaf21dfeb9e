"""Real models from the libraries that people use, with random weights: for tests and for the race.

Where a library ships the architecture it is the shipped one (keras.applications, haiku.nets); the others
are written in the layers of Flax nnx, Flax linen, Equinox and Haiku, in `models_written.py`.  Nothing in
them knows of jconv.  The libraries are imported when a model is built.

    full     the published depth and width, at the resolution people run it at
    reduced  the same kinds of layers, fewer and narrower, on small images: for tests
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jconv.bench import models_written as written


@dataclasses.dataclass(frozen=True)
class Built:
    """A model as a pure function.

    Args:
      apply: `(params, x) -> y`, in training mode, batch statistics and all.
      params: pytree of the trainable arrays.
      shape: of x, without the batch.
    """

    apply: Callable[[Any, jax.Array], jax.Array]
    params: Any
    shape: tuple[int, ...]

    def inputs(self, batch: int, seed: int = 0) -> jax.Array:
        """A batch of standard normal inputs."""
        return jax.random.normal(jax.random.key(seed), (batch, *self.shape))

    def loss(self, params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The distance of the outputs from fixed targets, and the outputs."""
        y = self.apply(params, x)
        targets = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return jnp.mean(jnp.square(y - targets)), y


@dataclasses.dataclass(frozen=True)
class Model:
    """An architecture by name.

    Args:
      name: what a table says.
      library: whose layers it is made of.
      heavy: what kind of convolution most of its time goes to: depthwise, grouped, transposed, dense.
      build: `full -> Built`.
    """

    name: str
    library: str
    heavy: str
    build: Callable[[bool], Built]

    def is_here(self) -> bool:
        """Whether its library is installed."""
        return importlib.util.find_spec(self.library.partition(".")[0]) is not None

    def __str__(self) -> str:
        return self.name


def keras_applications() -> tuple[Any, Any]:
    """`keras.applications` and keras, on JAX."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax and start again."
        )
    keras.utils.set_random_seed(0)
    return keras.applications, keras


def _keras(model: Any) -> Built:
    params = [jnp.asarray(v.value) for v in model.trainable_variables]
    state = [jnp.asarray(v.value) for v in model.non_trainable_variables]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return model.stateless_call(params, state, x, training=True)[0]

    return Built(apply, params, tuple(model.input_shape[1:]))


def _mobilenet_v2(full: bool) -> Built:
    applications, keras = keras_applications()
    if full:
        return _keras(applications.MobileNetV2(weights=None, classifier_activation=None))
    whole = applications.MobileNetV2((33, 35, 3), alpha=0.35, weights=None, include_top=False)
    return _keras(keras.Model(whole.input, whole.get_layer("block_4_add").output))


def _convnext_tiny(full: bool) -> Built:
    tiny = keras_applications()[0].ConvNeXtTiny
    if full:
        return _keras(tiny(weights=None, classifier_activation=None, input_shape=(224, 224, 3)))
    family = sys.modules[tiny.__module__]
    return _keras(
        family.ConvNeXt(
            (1, 1, 2, 1), (12, 24, 32, 48), include_preprocessing=False, weights=None, classes=10,
            classifier_activation=None, input_shape=(33, 35, 3), weights_name="",
        )
    )  # fmt: skip


def _efficientnet_b0(full: bool) -> Built:
    b0 = keras_applications()[0].EfficientNetB0
    if full:
        return _keras(b0(weights=None, classifier_activation=None))
    family = sys.modules[b0.__module__]
    return _keras(
        family.EfficientNet(
            0.25, 0.1, 32, weights=None, classes=10, classifier_activation=None, input_shape=(67, 65, 3),
            weights_name="",
        )
    )  # fmt: skip


def _as_built(write: Callable[[bool], tuple[Any, Any, tuple[int, ...]]]) -> Callable[[bool], Built]:
    return lambda full: Built(*write(full))


MODELS: tuple[Model, ...] = (
    Model("MobileNetV2", "keras", "depthwise", _mobilenet_v2),
    Model("ConvNeXt-T", "keras", "depthwise", _convnext_tiny),
    Model("EfficientNet-B0", "keras", "depthwise", _efficientnet_b0),
    Model("ResNet-50", "haiku", "dense", _as_built(written.resnet)),
    Model("ResNeXt-50", "flax.nnx", "grouped", _as_built(written.resnext)),
    Model("U-Net", "flax.linen", "transposed", _as_built(written.unet)),
    Model("U-Net 3-D", "flax.linen", "transposed", _as_built(written.unet3d)),
    Model("DCGAN generator", "equinox", "transposed", _as_built(written.dcgan)),
    Model("WaveNet", "haiku", "dilated", _as_built(written.wavenet)),
    Model("Mamba block", "flax.nnx", "depthwise", _as_built(written.mamba)),
)


def named(name: str) -> Model:
    """The model of that name, in any case.

    >>> named("resnet-50").library
    'haiku'
    """
    for model in MODELS:
        if model.name.lower() == name.lower():
            return model
    raise ValueError(f"`name`={name!r} is none of {', '.join(map(str, MODELS))}.")
