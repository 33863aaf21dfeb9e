"""Real models from real libraries: accelerated, they compute and learn the same.

Deep networks amplify rounding, each its own amount, and a parameter before a normalisation has a
gradient of zero that consists of rounding.  So the bound is not a taste but measured: the plain model is
run a second time with every parameter moved by a relative `NUDGE`, and what a result may differ by is

    tolerance · (its magnitude + its response to the nudge / NUDGE)

since a convolution that errs by `tolerance` is a convolution whose kernel is off by as much.
"""

import collections
import dataclasses
import functools
import os
import pickle
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import runs

import jconv
from jconv.bench.models import MODELS, named
from jconv.spec.tolerance import tolerance

NUDGE = 1e-5
TERMS = 9 * 1024  # longest sum of products: a kernel gradient over batch and positions
BATCH = 4

os.environ.setdefault("KERAS_BACKEND", "jax")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries
for _library in ("flax", "equinox", "haiku", "keras"):
    pytest.importorskip(_library, reason="needs the extra [models]")


QUICK = ("MobileNetV2", "ResNeXt-50", "DCGAN generator", "WaveNet", "Mamba block")  # to compile
SOME_OR_ALL = pytest.mark.parametrize(
    "model", [m if m.name in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in MODELS], ids=str
)


@functools.cache
def built(name):
    """The model, its input, and value_and_grad of its loss, plain and accelerated, compiled once."""
    model = named(name).build(False)
    value_and_grad = jax.value_and_grad(model.loss, has_aux=True)
    return model, model.inputs(BATCH), jax.jit(value_and_grad), jax.jit(jconv.accelerate(value_and_grad))


def nudged(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p * (1 + NUDGE * rng.choice([-1.0, 1.0], p.shape).astype(p.dtype)), params)


def assert_within_rounding(got, wanted, moved, steps=1):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    rounding = steps * tolerance("float32", TERMS)
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        other, near = (np.asarray(leaf_at(tree, path)) for tree in (got, moved))
        leaf = np.asarray(leaf)
        bound = rounding * (np.abs(leaf).max() + np.abs(near - leaf).max() / NUDGE)
        assert np.abs(other - leaf).max() <= bound, jax.tree_util.keystr(path)


def leaf_at(tree, path):
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]


@SOME_OR_ALL
def test_outputs_loss_and_every_gradient(model):
    built_model, x, plain, fast = built(model.name)
    params = built_model.params
    wanted, got, moved = plain(params, x), fast(params, x), plain(nudged(params), x)
    assert_within_rounding(got, wanted, moved)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(wanted[1])) > 1e-3, "nothing to learn"


@SOME_OR_ALL
def test_explained_outside_inside_and_installed_it_is_one_program(model, monkeypatch):
    """`accelerate` around the training step, around the model's apply, and not at all."""
    built_model, x, *_ = built(model.name)
    step = lambda model: jax.value_and_grad(model.loss, has_aux=True)  # noqa: E731
    inside = dataclasses.replace(built_model, apply=jconv.accelerate(built_model.apply))
    outside = jconv.accelerate(step(built_model))
    table = jconv.explain(outside, built_model.params, x)
    assert all(row.taken for row in table)
    roles = {row.role for row in table}
    assert {"forward", "grad_kernel"} <= roles  # at stride one grad_input is a convolution like any other
    ran = runs(monkeypatch)
    wanted = operations(outside, built_model.params, x)
    assert ran == {(row.role, str(row.spec), row.algorithm) for row in table}
    assert operations(step(inside), built_model.params, x) == wanted
    assert operations(step(built_model), built_model.params, x) != wanted
    with jconv.installed():
        assert operations(step(built_model), built_model.params, x) == wanted


def operations(fun, *args):
    """How many of each the lowered program has."""
    text = jax.jit(lambda *args: fun(*args)).lower(*args).as_text()
    return collections.Counter(re.findall(r"(?:stablehlo|chlo|func)\.\w+", text))


@pytest.mark.parametrize("name", ["WaveNet", "Mamba block", pytest.param("U-Net", marks=pytest.mark.slow)])
def test_twenty_steps_of_training_stay_together(name):
    model, x, plain, fast = built(name)

    def train(step, params):
        losses = []
        for _ in range(20):
            (loss, _), grads = step(params, x)
            params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
            losses.append(loss)
        return jnp.stack(losses)

    wanted, got = train(plain, model.params), train(fast, model.params)
    assert_within_rounding(got, wanted, train(plain, nudged(model.params)), steps=20)
    assert wanted[-1] < 0.99 * wanted[0], "it learns"


# -- the hooks of Flax -----------------------------------------------------------------------------


def test_the_hook_of_nnx():
    from flax import nnx

    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 7, 6), "float32"))
    options = {"strides": 2, "feature_group_count": 2, "kernel_dilation": 2, "padding": "SAME"}
    for extra in ({}, {"preferred_element_type": jnp.float32}, {"dtype": jnp.bfloat16}):
        plain, ours = (
            nnx.Conv(6, 8, (3, 3), **options, **extra, rngs=nnx.Rngs(0), **hook)
            for hook in ({}, {"conv_general_dilated": jconv.conv_general_dilated})
        )
        wanted, got = plain(x), ours(x)
        assert got.dtype == wanted.dtype
        bound = tolerance(str(wanted.dtype), 27)
        assert jnp.abs(got - wanted).max() <= bound * jnp.abs(wanted).max()
    text = str(jax.make_jaxpr(lambda x: ours(x))(x))
    assert "jconv_forward" in text
    assert "conv_general_dilated[" not in text


def test_the_hook_of_nnx_with_an_explicit_out_sharding():
    from flax import nnx

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 7, 3), "float32"))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    with jax.set_mesh(mesh):
        plain, ours = (
            nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0), **hook)
            for hook in ({}, {"conv_general_dilated": jconv.conv_general_dilated})
        )
        x = jax.device_put(x, sharding)
        wanted, got = (jax.jit(lambda layer, x: layer(x, out_sharding=sharding))(c, x) for c in (plain, ours))
    assert jax.typeof(got).sharding == jax.typeof(wanted).sharding
    assert jnp.abs(got - wanted).max() <= tolerance("float32", 27) * jnp.abs(wanted).max()


def test_the_hook_of_linen():
    from flax import linen

    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 7, 6), "float32"))
    layer = functools.partial(linen.Conv, 8, (3, 3), strides=2, feature_group_count=2)
    params = layer().init(jax.random.key(0), x)
    ours = layer(conv_general_dilated=jconv.conv_general_dilated)
    wanted, got = layer().apply(params, x), ours.apply(params, x)
    assert jnp.abs(got - wanted).max() <= tolerance("float32", 27) * jnp.abs(wanted).max()


# -- objects of libraries through accelerate -------------------------------------------------------


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, "float32"))


TRANSFORMATIONS = {
    "alone": lambda nnx, f, x: f(x),
    "jit": lambda nnx, f, x: jax.jit(f)(x),
    "grad": lambda nnx, f, x: jax.grad(lambda x: f(x).sum())(x),
    "vmap": lambda nnx, f, x: jax.vmap(f)(x[:, None]),
    "jvp": lambda nnx, f, x: jax.jvp(f, (x,), (x,))[1],
    "scan": lambda nnx, f, x: jax.lax.scan(lambda c, _: (c, f(x)), 0.0, None, length=2)[1],
    "checkpoint": lambda nnx, f, x: jax.checkpoint(f)(x),
    "nnx.jit": lambda nnx, f, x: nnx.jit(f)(x),
    "nnx.grad": lambda nnx, f, x: jax.tree.leaves(nnx.grad(lambda f: f(x).sum())(f))[0],
    "nnx.jit of a step": lambda nnx, f, x: nnx.jit(lambda f, x: f(x))(f, x),
    "eval_shape": lambda nnx, f, x: jnp.zeros(jax.eval_shape(f, x).shape),
    "export": lambda nnx, f, x: jax.export.export(jax.jit(f))(x).call(x),
}


@pytest.mark.parametrize(
    ("way", "of"),
    [(way, "module") for way in TRANSFORMATIONS]
    + [(way, "method") for way in TRANSFORMATIONS if not way.startswith("nnx.")],  # which Flax refuses
)
def test_nnx_modules_under_every_transformation(way, of):
    from flax import nnx

    net, x = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0)), normal(2, 9, 8, 4)
    plain = net if of == "module" else net.__call__
    fast = jconv.accelerate(plain)
    wanted, got = TRANSFORMATIONS[way](nnx, plain, x), TRANSFORMATIONS[way](nnx, fast, x)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance("float32", 200) * np.abs(wanted).max())


def runs_products(fun, *args):
    """Whether no convolution is left of an accelerated "im2col"."""
    return "stablehlo.convolution" not in jax.jit(lambda *args: fun(*args)).lower(*args).as_text()


def test_an_accelerated_nnx_module_is_that_module():
    import optax
    from flax import nnx

    net, x = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), normal(1, 8, 8, 3)
    fast = jconv.accelerate(net, "im2col")
    assert isinstance(fast, nnx.Conv)
    assert fast.kernel is net.kernel
    assert jax.tree.structure(nnx.state(fast)) == jax.tree.structure(nnx.state(net))
    graph, state = nnx.split(fast)
    assert runs_products(nnx.merge(graph, state), x)
    assert not runs_products(net, x)
    optimizer = nnx.Optimizer(fast, optax.sgd(0.1), wrt=nnx.Param)
    before = float(jnp.square(fast(x)).mean())
    for _ in range(3):
        optimizer.update(fast, nnx.grad(lambda net: jnp.square(net(x)).mean())(fast))
    assert float(jnp.square(net(x)).mean()) < before, "it is the same parameters that learned"
    again = pickle.loads(pickle.dumps(fast))
    assert runs_products(again, x)
    np.testing.assert_array_equal(again(x), fast(x))


def test_an_accelerated_equinox_module_is_that_module():
    import equinox as eqx
    import optax

    net, x = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)), normal(3, 8, 8)
    fast = jconv.accelerate(net, "im2col")
    assert isinstance(fast, eqx.nn.Conv2d)
    assert fast.weight is net.weight
    arrays, rest = eqx.partition(fast, eqx.is_array)
    assert len(jax.tree.leaves(arrays)) == 2
    assert runs_products(eqx.combine(arrays, rest), x)
    state = (optimizer := optax.sgd(0.1)).init(eqx.filter(fast, eqx.is_array))

    @eqx.filter_jit
    def step(net, state):
        grads = eqx.filter_grad(lambda net: jnp.square(net(x)).mean())(net)
        updates, state = optimizer.update(grads, state)
        return eqx.apply_updates(net, updates), state

    trained, _ = step(*step(fast, state))
    assert jnp.square(trained(x)).mean() < 0.99 * jnp.square(fast(x)).mean()
    assert runs_products(trained, x)
    assert runs_products(eqx.tree_at(lambda net: net.weight, fast, 2 * fast.weight), x)
    again = pickle.loads(pickle.dumps(fast))
    assert runs_products(again, x)
    np.testing.assert_array_equal(again(x), fast(x))


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equinox_has_nothing_to_warn_of():
    import equinox as eqx

    net, x = eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)), normal(3, 9, 8)

    class Holder(eqx.Module):
        net: eqx.Module
        loss: object = eqx.field(static=True)

    holder = Holder(jconv.accelerate(net), jconv.accelerate(lambda y: jnp.square(y).sum()))
    wanted = eqx.filter_grad(lambda net, x: jnp.square(net(x)).sum())(net, x)
    for way in (eqx.filter_grad, lambda fun: eqx.filter_jit(jconv.accelerate(eqx.filter_grad(fun)))):
        got = way(lambda holder, x: holder.loss(holder.net(x)))(holder, x)
        np.testing.assert_allclose(got.net.weight, wanted.weight, rtol=1e-4, atol=1e-4)


def test_explain_changes_no_state():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.conv(x))

    net, x = Net(), normal(2, 8, 8, 3)
    loss = lambda net, x: jnp.square(net(x)).mean()  # noqa: E731
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net)))
    assert [row.role for row in jconv.explain(lambda net, x: nnx.grad(loss)(net, x), net, x)] == [
        "forward", "grad_kernel"]  # fmt: skip
    for fun in (net, net.__call__, jconv.accelerate(net)):
        assert len(jconv.explain(fun, x)) == 1
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(net)))
    abstract = nnx.eval_shape(Net)
    assert len(jconv.explain(loss, abstract, jax.ShapeDtypeStruct(x.shape, x.dtype))) == 1


def test_state_of_nnx_objects_reaches_the_caller():
    import optax
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(self.conv(x)))

    def step(model, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean(jnp.square(model(x))))(model)
        optimizer.update(model, grads)
        return loss

    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3), "float32"))
    nets = [Net() for _ in range(3)]
    optimizers = [nnx.Optimizer(net, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param) for net in nets]
    plain, inside, outside = nnx.jit(step), nnx.jit(jconv.accelerate(step)), jconv.accelerate(nnx.jit(step))
    for _ in range(2):
        for run, net, optimizer in zip((plain, inside, outside), nets, optimizers, strict=True):
            run(net, optimizer, x)
    kept = nnx.Not(nnx.RngKey)
    states = [(nnx.state(n, kept), nnx.state(o, kept)) for n, o in zip(nets, optimizers, strict=True)]
    for wanted, *others in zip(*map(jax.tree.leaves, states), strict=True):
        for got in others:
            np.testing.assert_allclose(got, wanted, rtol=tolerance("float32", 1000), atol=1e-5)
    assert float(jnp.abs(nets[1].norm.mean[...]).max()) > 0


def test_equinox_modules_and_their_filters():
    import equinox as eqx

    net = eqx.nn.Sequential(
        [eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)), eqx.nn.Lambda(jax.nn.gelu)]
    )  # fmt: skip
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 9, 8), "float32"))
    loss = lambda net, x: jnp.sum(jnp.square(net(x)))  # noqa: E731
    wanted = eqx.filter_grad(loss)(net, x)
    ways = (
        jconv.accelerate(eqx.filter_grad(loss)),
        eqx.filter_grad(jconv.accelerate(loss)),
        eqx.filter_jit(jconv.accelerate(eqx.filter_grad(loss))),
        jconv.accelerate(eqx.filter_jit(eqx.filter_grad(loss))),
    )
    for way in ways:
        got = way(net, x)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert jnp.abs(a - b).max() <= tolerance("float32", 4 * 42) * jnp.abs(b).max()
