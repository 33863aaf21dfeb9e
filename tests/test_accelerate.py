"""accelerate, explain and install: programs keep their meaning, and no convolution is left to lax."""

import functools
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import PartitionSpec

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
