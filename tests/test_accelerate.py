"""accelerate, explain and install: programs keep their meaning, and no convolution is left to lax."""

import dataclasses
import functools
import importlib
import json
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec
from oracles import convolutions

from jconv.accelerate import accelerate, explain, install, installed, uninstall
from jconv.tolerance import tolerance

ROUNDING = tolerance("float32", 4000)  # no sum below, over two convolutions and a loss, is longer


def conv(x, w):
    return lax.conv_general_dilated(x, w, (2, 2), "SAME", feature_group_count=2)


def same(x, w):
    """Shape-preserving, to be iterated."""
    return x + lax.conv(x, w, (1, 1), "SAME") / 8


def loss_of(fun):
    return lambda x, w: jnp.sum(jnp.square(fun(x, w)))


def normal(seed, *shape):
    """NumPy's numbers: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, "float32"))


@pytest.fixture
def x():
    return normal(0, 2, 4, 9, 7)


@pytest.fixture
def w():
    return normal(1, 6, 2, 3, 3)


@pytest.fixture
def v():
    return normal(2, 4, 4, 3, 2)


def assert_close(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING * scale)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def calls(fun, *args):
    """(convolutions left to lax, calls of jconv) in the jaxpr."""
    names = [eqn.primitive.name for eqn in equations(jax.make_jaxpr(fun)(*args).jaxpr)]
    return names.count("conv_general_dilated"), sum(name.startswith("jconv_") for name in names)


# -- every primitive that holds programs -----------------------------------------------------------


@jax.custom_vjp
def doubled_vjp(x, v):
    return same(x, v)


def _doubled_bwd(residuals, g):
    dx, dv = jax.vjp(same, *residuals)[1](g)
    return 2 * dx, 3 * dv


doubled_vjp.defvjp(lambda x, v: (same(x, v), (x, v)), _doubled_bwd)


@jax.custom_vjp
def only_the_rule_convolves(x, v):
    return x * 2


only_the_rule_convolves.defvjp(
    lambda x, v: (x * 2, v), lambda v, g: (lax.conv(g, v, (1, 1), "SAME"), jnp.zeros_like(v))
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def doubled_jvp(x, v, scale):
    return same(x, v) * scale


@doubled_jvp.defjvp
def _doubled_jvp(scale, primals, tangents):
    (x, v), (dx, dv) = primals, tangents
    return doubled_jvp(x, v, scale), 2 * same(dx, v) + 3 * lax.conv(x, dv, (1, 1), "SAME")


def in_scan(x, v):
    return lax.scan(lambda carry, kernel: (same(carry, kernel), carry.sum()), x, jnp.stack([v, -v, v]))[0]


def in_while(x, v):
    step = lambda state: (state[0] + 1, same(state[1], v))  # noqa: E731
    return lax.while_loop(lambda state: jnp.sum(same(x, v)) * 0 + state[0] < 3, step, (0.0, x))[1]


def in_cond(x, v):
    return lax.cond(x[0, 0, 0, 0] > 0, same, lambda x, v: -same(x, v), x, v)


def in_switch(x, v):
    return lax.switch(jnp.int32(2), [lambda: x, lambda: same(x, v), lambda: 2 * same(x, v)])


def in_shard_map(x, v):
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    shards, whole = PartitionSpec("batch"), PartitionSpec()

    def body(x, v):
        y = same(x, v)
        return y * lax.psum(jnp.mean(y), "batch")

    return jax.shard_map(body, mesh=mesh, in_specs=(shards, whole), out_specs=shards)(x, v)


PROGRAMS = {
    "plain": same,
    "jit": jax.jit(same),
    "nested jit": jax.jit(lambda x, v: jax.jit(same)(jax.jit(same)(x, v), v)),
    "scan": in_scan,
    "fori": lambda x, v: lax.fori_loop(0, 3, lambda i, x: same(x, v), x),
    "cond": in_cond,
    "switch": in_switch,
    "checkpoint": jax.checkpoint(same),
    "policy": jax.checkpoint(same, policy=jax.checkpoint_policies.dots_saveable),
    "shard_map": in_shard_map,
    "custom_vjp": doubled_vjp,
    "custom_jvp": lambda x, v: doubled_jvp(x, v, 2.0),
    "vmap": lambda x, v: jax.vmap(same, (0, None))(x[:, None], v)[:, 0],
    "vmapped scan": lambda x, v: jax.vmap(in_scan, (0, None))(x[:, None], v)[:, 0],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients_through(name, x, v):
    """The gradient is taken inside and outside of `accelerate`: both times custom rules hold."""
    plain = jax.value_and_grad(loss_of(PROGRAMS[name]), (0, 1))
    inside = accelerate(plain)
    outside = jax.value_and_grad(accelerate(loss_of(PROGRAMS[name])), (0, 1))
    for fast in (inside, outside):
        left, ours = calls(fast, x, v)
        assert left == 0
        assert ours >= calls(plain, x, v)[0]
    wanted = jax.jit(plain)(x, v)
    assert_close(jax.jit(outside)(x, v), wanted)
    if name in ("scan", "policy", "custom_vjp", "custom_jvp"):
        assert_close(jax.jit(inside)(x, v), wanted)


@pytest.mark.parametrize("name", ["dots_saveable", "everything_saveable", "nothing_saveable"])
def test_a_checkpoint_policy_keeps_what_it_kept(name, x, v):
    """dots_saveable asks for lax's primitive by identity: two convolutions, their results kept."""
    policy = getattr(jax.checkpoint_policies, name)
    twice = jax.checkpoint(lambda x, v: jnp.sin(same(jnp.sin(same(x, v)), v)), policy=policy)
    plain = jax.grad(loss_of(twice), (0, 1))
    fast = jax.grad(loss_of(accelerate(twice)), (0, 1))
    assert calls(fast, x, v) == (0, calls(plain, x, v)[0])
    assert_close(jax.jit(fast)(x, v), jax.jit(plain)(x, v))


def test_a_checkpoint_policy_that_reads_the_parameters(x, v):
    seen = []

    def policy(primitive, *avals, **params):
        if primitive is lax.conv_general_dilated_p:
            seen.append((params["window_strides"], params["feature_group_count"], len(avals)))
        return primitive is lax.conv_general_dilated_p

    jax.grad(loss_of(accelerate(jax.checkpoint(conv, policy=policy))))(x, normal(1, 6, 2, 3, 3))
    assert seen
    assert set(seen) == {((2, 2), 2, 2)}


def test_while(x, v):
    assert calls(accelerate(in_while), x, v) == (0, 2)
    assert_close(accelerate(in_while)(x, v), in_while(x, v))


def test_a_rule_that_convolves_though_its_body_does_not(x, v):
    grad = jax.grad(accelerate(loss_of(only_the_rule_convolves)))
    assert calls(grad, x, v) == (0, 1)
    assert_close(grad(x, v), jax.grad(loss_of(only_the_rule_convolves))(x, v))


def test_custom_rules_that_may_not_be_differentiated_are_not_asked(x, v):
    @jax.custom_vjp
    def final(x):
        return x * 2

    def refuse(*_):
        raise RuntimeError("not differentiable")

    final.defvjp(refuse, refuse)
    assert_close(accelerate(lambda x, v: final(same(x, v)))(x, v), 2 * same(x, v))


def test_custom_derivative_with_integer_arguments(x, v):
    @jax.custom_vjp
    def picked(x, v, i):
        return same(x, v)[i]

    def bwd(residuals, g):
        x, v, i = residuals
        return *jax.vjp(lambda x, v: same(x, v)[i], x, v)[1](g), np.zeros((), jax.dtypes.float0)

    picked.defvjp(lambda x, v, i: (picked(x, v, i), (x, v, i)), bwd)
    at = lambda fun: jax.grad(lambda x, v, i: jnp.sum(jnp.square(fun(x, v, i))), (0, 1))  # noqa: E731
    i = jnp.int32(1)
    assert_close(at(accelerate(picked))(x, v, i), at(picked)(x, v, i))


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.hessian])
def test_forward_mode_outside(mode, x, v):
    at = lambda fun: mode(lambda s: jnp.sum(jnp.square(fun(x, s * v))))  # noqa: E731
    assert_close(at(accelerate(same))(1.5), at(same)(1.5))


def test_vmap_outside(x, v):
    kernels = jnp.stack([v, -v, 2 * v])
    assert_close(jax.vmap(accelerate(same), (None, 0))(x, kernels), jax.vmap(same, (None, 0))(x, kernels))


def test_the_roles_of_lax_gradients_are_recognised(x, w):
    found = explain(jax.grad(loss_of(conv), (0, 1)), x, w)
    assert [(row.role, row.count, row.taken) for row in found] == [
        ("forward", 1, True), ("grad_kernel", 1, True), ("grad_input", 1, True),
    ]  # fmt: skip
    assert len({row.spec for row in found}) == 1, "all of one convolution"


def test_programs_without_convolutions_are_left_alone(x):
    program = jax.make_jaxpr(jax.jit(lambda x: jax.nn.relu(jnp.sin(x)).sum()))(x)
    from jconv.accelerate.rewrite import rewritten

    assert rewritten(program) is program


def test_explicit_types_are_kept(x, w):
    half = lambda x, w: lax.conv_general_dilated(  # noqa: E731
        x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), (1, 1), "SAME", feature_group_count=2,
        preferred_element_type=jnp.float32, precision="highest",
    )  # fmt: skip
    assert calls(accelerate(half), x, w) == (0, 1)
    got, wanted = accelerate(half)(x, w), half(x, w)
    assert got.dtype == wanted.dtype == jnp.float32
    assert_close(got, wanted)


# -- what stays lax's ------------------------------------------------------------------------------


def test_what_cannot_be_taken_over_stays_and_says_why(x, v, monkeypatch):
    from jconv.accelerate import takeover

    def refuses(*_, **__):
        raise NotImplementedError("no such thing here\nand more")

    takeover._door.cache_clear()
    monkeypatch.setattr(takeover, "conv_general_dilated", refuses)
    assert calls(accelerate(same), x, v) == (1, 0)
    (row,) = explain(same, x, v)
    assert (row.algorithm, row.reason) == ("lax", "jconv: NotImplementedError: no such thing here")
    assert not row.taken
    assert "[2,4,9,7]" in row.equation
    takeover._door.cache_clear()


def test_a_primitive_of_unknown_meaning_is_not_looked_into(x, v):
    @jax.custom_batching.custom_vmap
    def opaque(x):
        return same(x, v)

    opaque.def_vmap(lambda size, batched, x: (jax.vmap(same, (0, None))(x, v), True))
    assert calls(accelerate(opaque), x) == (1, 0)
    (row,) = explain(opaque, x)
    assert "custom_vmap_call" in row.reason
    assert not row.taken


# -- arguments and results -------------------------------------------------------------------------


def test_static_arguments_pytrees_and_results_of_any_kind(x, v):
    def fn(tree, power, *, mode="plain", flag=True):
        y = same(tree["x"], tree["v"]) if flag and mode == "plain" else tree["x"]
        return {"y": y**power, "mode": mode, "power": power, "fun": jnp.sin, "none": None}

    fast = accelerate(fn)
    for args, kwargs in (((2,), {}), ((3,), {"mode": "other"}), ((2,), {"flag": False}), ((True,), {})):
        got, wanted = fast({"x": x, "v": v}, *args, **kwargs), fn({"x": x, "v": v}, *args, **kwargs)
        assert_close(got.pop("y"), wanted.pop("y"))
        assert got == wanted
        assert type(got["power"]) is type(wanted["power"])


def test_numpy_arguments(x, v):
    assert_close(accelerate(same)(np.asarray(x), np.asarray(v)), same(x, v))


def test_traced_once_per_kind_of_arguments(x, v):
    traces = []

    def fn(x, v, n):
        traces.append(n)
        return same(x, v) * n

    fast = accelerate(fn)
    for _ in range(3):
        fast(x, v, 2)
    assert traces == [2]
    fast(x, v, 3)
    fast(x[:1], v, 3)
    fast(x, v, 2)
    assert traces == [2, 3, 3]


def test_a_jitted_function_is_compiled_once(x, v):
    compiled, other = [], normal(5, *x.shape)
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        fast = accelerate(jax.jit(lambda x, v: same(x, v) * 3))
        fast(x, v)
        assert compiled
        compiled.clear()
        fast(other, v)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_unhashable_static_arguments_work(x, v):
    class Options:
        __hash__ = None

        def __eq__(self, other):
            return True

    assert_close(accelerate(lambda x, v, o: same(x, v))(x, v, Options()), same(x, v))


class Plain:
    """An object as most are: no pytree, equal to itself whatever its attributes are."""

    def __init__(self, w):
        self.w = w

    def forward(self, x, scale=1):
        return same(x, self.w) * scale

    __call__ = forward


@dataclasses.dataclass(frozen=True)
class Config:
    held: object = None


def of_partial(model):
    return accelerate(functools.partial(model.forward, scale=2))


def inside_a_tuple(model):
    return lambda x: accelerate(lambda held, x: held[1].forward(x))(("model", model), x)


CALLS_OF_A_PLAIN_OBJECT = {
    "method": lambda model: accelerate(model.forward),
    "object": accelerate,
    "partial": of_partial,
    "partial of the object": lambda model: accelerate(functools.partial(model, scale=2)),
    "argument": lambda model: functools.partial(accelerate(lambda m, x: m.forward(x)), model),
    "method as argument": lambda model: functools.partial(accelerate(lambda f, x: f(x)), model.forward),
    "partial as argument": lambda model: functools.partial(
        accelerate(lambda f, x: f(x)), functools.partial(model.forward, scale=3)
    ),
    "in a frozen dataclass": lambda model: functools.partial(
        accelerate(lambda config, x: config.held.forward(x)), Config(model)
    ),
    "method of a container": lambda model: functools.partial(
        accelerate(lambda get, x: same(x, get("w"))), vars(model).get
    ),
}


@pytest.mark.parametrize("way", CALLS_OF_A_PLAIN_OBJECT)
def test_a_change_of_a_plain_object_is_seen(way, x, v):
    model = Plain(v)
    fast = CALLS_OF_A_PLAIN_OBJECT[way](model)
    before = np.asarray(fast(x))
    model.w = jnp.zeros_like(v)
    without, scale = np.asarray(fast(x)), way.count("partial") + 1 + way.count("partial as")
    model.w = v
    assert_close(without, x * jnp.float32(scale))
    assert_close(before, same(x, v) * jnp.float32(scale))
    assert_close(fast(x), before)


def test_what_cannot_change_is_traced_once(x, v):
    traces = []

    def fn(x, v, static):
        traces.append(static)
        return same(x, v)

    jitted, cached = jax.jit(jnp.sin), functools.lru_cache(normal)
    make = (
        lambda: "text", lambda: 2, lambda: 2.5, lambda: float("nan"), lambda: 1j, lambda: b"b",
        lambda: jnp.sin, lambda: jitted, lambda: cached, lambda: jax.nn.relu, lambda: np.add, lambda: np,
        lambda: Plain, lambda: jnp.float32, lambda: np.dtype("int8"), lambda: lax.Precision.HIGHEST,
        lambda: jax.devices()[0], lambda: jax.sharding.PartitionSpec("a"), lambda: slice,
        lambda: Config((1, "a", jnp.sin)), lambda: frozenset({1, 2.0}), lambda: int.from_bytes,
        lambda: functools.partial(jax.nn.gelu, approximate=False), lambda: "a-b".split,
    )  # fmt: skip
    for value in make:
        traces.clear()
        fast = accelerate(fn)
        for _ in range(3):
            fast(x, v, value())
        assert len(traces) == 1, value()


@pytest.mark.parametrize(
    "wrap", [lambda s: s, Config, lambda s: Config((s,)), lambda s: functools.partial(int, s)]
)
def test_the_sign_of_zero_and_the_type_of_a_number_are_part_of_the_kind(wrap):
    def unwrap(static):
        if isinstance(static, (int, float, complex)):
            return static
        if isinstance(static, Config):
            return unwrap(static.held)
        return unwrap(static[0] if isinstance(static, tuple) else static.args[0])

    def fn(static, x):
        number = unwrap(static)
        return jnp.copysign(1.0, np.real(number)) * x, number

    fast, one = accelerate(fn), jnp.ones(1)
    for number in (0.0, -0.0, 1, True, 1.0, 0j, complex(-0.0, 0), 0, False):
        got, back = fast(wrap(number), one)
        assert float(got[0]) == np.copysign(1.0, np.real(number))
        assert repr(back) == repr(number)


@pytest.mark.filterwarnings("ignore")  # of Flax
@pytest.mark.parametrize("kind", ["linen", "nnx", "nnx.jit", "nnx method", "eqx", "eqx method"])
def test_objects_of_libraries_are_traced_once_for_each_static_value(kind):
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    eqx = pytest.importorskip("equinox")
    traces, x = [], normal(0, 4, 5, 4)

    def fn(model, scale, *args):
        traces.append(scale)
        return jnp.copysign(1.0, scale) * model(*args)

    layer, net = linen.Conv(4, (3, 3)), nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    module = eqx.nn.Conv2d(4, 4, 3, key=jax.random.key(0))
    model, *args = {
        "linen": lambda: (layer.apply, layer.init(jax.random.key(0), x), x),
        "nnx": lambda: (net, x),
        "nnx method": lambda: (type("Net", (nnx.Conv,), {"scaled": fn})(4, 4, (3, 3), rngs=nnx.Rngs(0)), x),
        "nnx.jit": lambda: (nnx.jit(lambda net, x: net(x)), net, x),
        "eqx": lambda: (module, x),
        "eqx method": lambda: (
            type("Net", (eqx.nn.Conv2d,), {"scaled": fn})(4, 4, 3, key=jax.random.key(0)),
            x,
        ),
    }[kind]()
    fast = accelerate(model.scaled if "method" in kind else functools.partial(fn, model))
    plain = model(*args)
    for scale in (0.0, -0.0, 0.0, -0.0):
        assert_close(fast(scale, *args), jnp.copysign(1.0, scale) * plain)
    assert list(map(str, traces)) == ["0.0", "-0.0"]


@pytest.mark.filterwarnings("ignore")  # of Flax
def test_a_change_of_a_plain_object_beside_an_nnx_module_is_seen(x, v):
    nnx = pytest.importorskip("flax.nnx")
    net, model = nnx.Linear(7, 7, rngs=nnx.Rngs(0)), Plain(v)
    fast = accelerate(lambda net, model, x: model.forward(net(x)))
    fast(net, model, x)
    model.w = jnp.zeros_like(v)
    assert_close(fast(net, model, x), net(x))


def test_donation(x, v):
    jitted = jax.jit(same, donate_argnums=0)
    for fast in (accelerate(jitted), jax.jit(accelerate(same), donate_argnums=0)):
        mine = x + 0
        assert_close(fast(mine, v), same(x, v))
        assert mine.is_deleted()


def test_static_arguments_of_jit_on_either_side(x, v):
    power = lambda x, v, n: same(x, v) ** (n if n > 1 else 3)  # noqa: E731
    for fast in (
        accelerate(jax.jit(power, static_argnums=2)), jax.jit(accelerate(power), static_argnums=2)
    ):  # fmt: skip
        assert_close(fast(x, v, 2), power(x, v, 2))


def test_closures_over_tracers(x, v):
    at = lambda wrap: jax.grad(lambda v: jnp.sum(wrap(lambda x: same(x, v))(x) ** 2))  # noqa: E731
    assert_close(at(accelerate)(v), at(lambda fun: fun)(v))


def test_callable_objects_and_methods_give_their_arrays_as_arguments(x, v):
    @jax.tree_util.register_pytree_node_class
    class Module:
        def __init__(self, v):
            self.v = v

        def __call__(self, x):
            return same(x, self.v)

        def tree_flatten(self):
            return (self.v,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    module = Module(v)
    for fast in (accelerate(module), accelerate(module.__call__)):
        assert_close(fast(x), same(x, v))
    fast = accelerate(module)
    fast(x)
    module.v = 2 * v  # an argument, not a constant
    assert_close(fast(x), same(x, 2 * v))


def test_results_of_numpy_are_arrays_of_jax(x):
    fn = lambda x: (np.arange(3), np.float32(2), jnp.float32(3), x)  # noqa: E731
    for got, wanted in zip(accelerate(fn)(x), jax.jit(fn)(x), strict=True):
        assert type(got) is type(wanted)
        assert (got.dtype, got.weak_type) == (wanted.dtype, wanted.weak_type)
        np.testing.assert_array_equal(got, wanted)


def test_partial(x, v):
    assert_close(accelerate(functools.partial(same, w=v))(x), same(x, v))


def test_its_own_errors_and_those_of_the_function(x, v):
    with pytest.raises(TypeError, match=r"`fn` must be callable, got ArrayImpl"):
        accelerate(x)
    with pytest.raises((TypeError, ValueError), match="feature dimension"):
        accelerate(same)(x, v[:, :3])


def test_names_and_documentation_are_kept():
    assert accelerate(same).__name__ == "same"
    assert accelerate(same).__doc__ == same.__doc__
    assert accelerate(same).__wrapped__ is same


def test_accelerating_twice_changes_nothing(x, v):
    assert calls(accelerate(accelerate(same)), x, v) == (0, 1)


# -- explain ---------------------------------------------------------------------------------------


def test_counts_multiply_through_loops(x, v):
    nested = lambda x, v: lax.scan(lambda c, _: (in_scan(c, v), None), x, length=5)[0]  # noqa: E731
    (row,) = explain(nested, x, v)
    assert row.count == 15


def test_the_place_is_in_the_code_of_the_user(x, v):
    first = same.__code__.co_firstlineno
    for fn in (same, accelerate(same), jax.grad(loss_of(same))):
        for row in explain(fn, x, v):
            assert row.where == f"tests/test_accelerate.py:{first + 2}"


def test_scopes_are_named(x, v):
    def fn(x, v):
        with jax.named_scope("block"), jax.named_scope("conv"):
            return same(x, v)

    assert explain(fn, x, v).rows[0].scope == "block/conv"


def test_the_table_prints(x, v):
    table = explain(jax.grad(loss_of(lambda x, v: same(same(x, v), v)), (0, 1)), x, v)
    text = str(table).splitlines()
    assert len(text) == len(table) + 2
    assert text[0].split()[:3] == ["count", "where", "role"]
    assert text[-1].startswith("6 convolutions on ")
    assert text[1].index(table.rows[0].role) == text[0].index("role")
    assert table._repr_html_().count("<tr>") == len(table) + 1
    assert json.loads(json.dumps(table.as_dicts()))[0]["algorithm"] == table.rows[0].algorithm
    assert sum(row["count"] for row in table.as_dicts()) == 6


def test_shapes_suffice_to_explain(v):
    x = jax.ShapeDtypeStruct((64, 4, 99, 77), "float32")
    assert explain(same, x, v).rows[0].spec.batch == 64


def test_nothing_found():
    assert str(explain(jnp.sin, 1.0)).endswith("0 convolutions on cpu: estimated 0 µs by lax, 0 µs by jconv")


# -- install ---------------------------------------------------------------------------------------


@pytest.fixture
def clean():
    uninstall()
    yield
    uninstall()


@pytest.mark.usefixtures("clean")
def test_install_and_uninstall(x, v):
    grad = jax.jit(jax.grad(loss_of(same), (0, 1)))
    wanted = grad(x, v)
    assert calls(grad, x, v)[0] == 3
    install()
    install()
    assert calls(grad, x, v) == (0, 3), "the compiled function of before is not used any more"
    assert_close(grad(x, v), wanted)
    assert_close(jax.vmap(jax.grad(loss_of(same)), (None, 0))(x, v[None])[0], wanted[0])
    uninstall()
    assert calls(grad, x, v) == (3, 0)


@pytest.mark.usefixtures("clean")
def test_installed_for_a_while(x, v):
    with installed():
        with installed():
            pass
        assert calls(same, x, v) == (0, 1)
        assert calls(accelerate(same), x, v) == (0, 1)
        assert explain(same, x, v).rows[0].taken
    assert calls(same, x, v) == (1, 0)


@pytest.mark.usefixtures("clean")
def test_a_named_algorithm_is_not_replaced_while_installed(x, w):
    """What an algorithm itself asks lax for is lax's, or "xla" would be jconv all the way down."""
    import jconv

    run = jax.jit(functools.partial(jconv.conv2d, groups=2, algorithm="xla"))
    with installed():
        got = run(x, w)
        text = run.lower(x, w).as_text()
    assert "stablehlo.convolution" in text
    assert_close(got, jconv.conv2d(x, w, groups=2, algorithm="im2col"))


@pytest.mark.usefixtures("clean")
def test_errors_while_installed_are_lax_errors(x, v):
    with installed(), pytest.raises((TypeError, ValueError), match="feature dimension"):
        lax.conv(x, v[:, :3], (1, 1), "SAME")


@pytest.mark.usefixtures("clean")
def test_install_holds_for_every_thread(x, v):
    seen = []
    install()
    thread = threading.Thread(target=lambda: seen.append(calls(same, x, v)))
    thread.start()
    thread.join()
    assert seen == [(0, 1)]


@pytest.mark.usefixtures("clean")
def test_a_failure_while_installed_is_said_once(x, v, monkeypatch):
    def fails(*_, **__):
        raise KeyError("a plain bug")

    module = importlib.import_module("jconv.accelerate.install")  # the package has a function of that name
    takeover = importlib.import_module("jconv.accelerate.takeover")
    monkeypatch.setattr(takeover, "conv_general_dilated", fails)
    module._warn.cache_clear()
    plain = same(x, v)
    with installed(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_close(same(x, v), plain)
        assert_close(same(x[:1], v), plain[:1])
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert "KeyError: 'a plain bug'" in str(warning.message)
    module._warn.cache_clear()


@pytest.mark.usefixtures("clean")
def test_a_refusal_while_installed_is_not_worth_a_word(x, v, monkeypatch):
    def refuses(*_, **__):
        raise NotImplementedError("no such thing here")

    takeover = importlib.import_module("jconv.accelerate.takeover")
    monkeypatch.setattr(takeover, "conv_general_dilated", refuses)
    with installed(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calls(same, x, v) == (1, 0)


def test_a_precision_recorded_outside_stands():
    """lax keeps what it recorded; the place where it is rewritten has no say."""
    x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((3, 2, 3, 3))
    traced = jax.make_jaxpr(lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME"))(x, w)
    with jax.default_matmul_precision("highest"):
        program = jax.make_jaxpr(accelerate(jax.extend.core.jaxpr_as_fun(traced)))(x, w)
    specs = [spec for _, spec in convolutions(jax.extend.core.jaxpr_as_fun(program), x, w)]
    assert [spec.precision for spec in specs] == [None]
