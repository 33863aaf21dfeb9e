"""accelerate, explain and install: programs keep their meaning, and no convolution is left to lax."""

import collections
import contextlib
import functools
import json
import pickle
import re
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from oracles import equations, runs

import jconv
from jconv import explain
from jconv.programs import lowering
from jconv.programs.accelerate import accelerate, accelerated
from jconv.programs.lowering import install, installed, uninstall
from jconv.runtime import private
from jconv.runtime.mark import mark
from jconv.spec.tolerance import tolerance

NHWC = ("NHWC", "HWIO", "NHWC")
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


def left(fun, *args):
    """How many convolutions the lowered program has.  im2col has none, so that none is left by
    `accelerate(fun, "im2col")` but those that are not taken over."""
    return jax.jit(fun).lower(*args).as_text().count("stablehlo.convolution")


def by_products(fun):
    return accelerate(fun, "im2col")


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
    ways = {
        "inside": accelerate(plain),
        "outside": jax.value_and_grad(accelerate(loss_of(PROGRAMS[name])), (0, 1)),
        "around jit": accelerate(jax.jit(plain)),
    }
    wanted = jax.jit(plain)(x, v)
    for fast in ways.values():
        assert_close(jax.jit(fast)(x, v), wanted)
    assert left(plain, x, v) > 0
    assert left(by_products(plain), x, v) == 0
    assert left(jax.value_and_grad(by_products(loss_of(PROGRAMS[name])), (0, 1)), x, v) == 0


@pytest.mark.parametrize("name", ["plain", "jit", "custom_vjp", "scan"])
def test_eager_calls_and_gradients(name, x, v):
    plain = jax.value_and_grad(loss_of(PROGRAMS[name]), (0, 1))
    assert_close(accelerate(plain)(x, v), plain(x, v))
    assert_close(jax.value_and_grad(accelerate(loss_of(PROGRAMS[name])), (0, 1))(x, v), plain(x, v))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_stays_what_it_was(name, x, v):
    """Whoever reads jaxprs sees lax, equation for equation."""
    names = [
        [eqn.primitive.name for eqn in equations(jax.make_jaxpr(fun)(x, v))]
        for fun in (PROGRAMS[name], accelerate(PROGRAMS[name]))
    ]
    assert names[0] == names[1]


def test_while(x, v):
    assert left(by_products(in_while), x, v) == 0
    assert_close(accelerate(in_while)(x, v), in_while(x, v))


def test_a_rule_that_convolves_though_its_body_does_not(x, v):
    plain = jax.grad(loss_of(only_the_rule_convolves))
    assert_close(jax.grad(accelerate(loss_of(only_the_rule_convolves)))(x, v), plain(x, v))
    assert left(plain, x, v) == 1
    assert left(jax.grad(by_products(loss_of(only_the_rule_convolves))), x, v) == 0


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


def test_explicit_types_are_kept(x, w):
    half = lambda x, w: lax.conv_general_dilated(  # noqa: E731
        x.astype(jnp.bfloat16), w.astype(jnp.bfloat16), (1, 1), "SAME", feature_group_count=2,
        preferred_element_type=jnp.float32, precision="highest",
    )  # fmt: skip
    assert left(by_products(half), x, w) == 0
    got, wanted = accelerate(half)(x, w), half(x, w)
    assert got.dtype == wanted.dtype == jnp.float32
    assert_close(got, wanted)


# -- what stays lax's ------------------------------------------------------------------------------


@pytest.fixture
def fails(monkeypatch):
    """jconv fails with the error handed in."""
    lowering._warn.cache_clear()

    def failing(error):
        def convolve(*_, **__):
            raise error

        monkeypatch.setattr(lowering, "convolve", convolve)

    yield failing
    lowering._warn.cache_clear()


def test_a_refusal_stays_and_says_why(x, v, fails):
    plain = same(x, v)
    fails(NotImplementedError("no such thing here\nand more"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(jax.jit(accelerate(same))(x, v), plain)
    (row,) = explain(same, x, v)
    assert (row.algorithm, row.reason) == ("lax", "jconv: NotImplementedError: no such thing here")
    assert not row.taken
    assert "[2,4,9,7]" in row.equation


def test_a_failure_is_said_once(x, v, fails):
    plain = same(x, v)
    fails(KeyError("a plain bug"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_close(jax.jit(accelerate(same))(x, v), plain)
        assert_close(jax.jit(accelerate(same))(x[:1], v), plain[:1])
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert "KeyError: 'a plain bug'" in str(warning.message)


def test_an_algorithm_that_was_named_does_not_fail_in_silence(x, v):
    wrong = jconv.Algorithm("mine", lambda x, w, spec: jnp.zeros(()))
    with pytest.raises((TypeError, ValueError)):
        jax.jit(accelerate(same, wrong))(x, v)


def test_an_unmarked_convolution_of_the_same_program_stays(x, v):
    both = lambda x, v: same(by_products(same)(x, v), v)  # noqa: E731
    assert left(both, x, v) == 1
    jitted = jax.jit(same)
    both = lambda x, v: jitted(by_products(jitted)(x, v), v)  # noqa: E731
    assert left(both, x, v) == 1


def test_the_mark_alone_leaves_the_compiled_program_as_it_was(x, v):
    """Operations, fusions and temporaries; so its time to compile and run, too."""

    def compiled(word):
        def block(x, v):
            with mark(word):
                return jnp.tanh(same(jax.nn.gelu(x), v)).sum((2, 3)) + x.max()

        program = jax.jit(jax.value_and_grad(lambda x, v: block(x, v).sum(), (0, 1))).lower(x, v).compile()
        operations = collections.Counter(re.findall(r"= \S+ ([a-z-]+)\(", program.as_text()))
        return operations, program.memory_analysis().temp_size_in_bytes

    marked, plain = compiled("lax"), compiled(None)
    assert marked == plain
    assert plain[0]["fusion"] > 0


# -- which algorithm -------------------------------------------------------------------------------


def test_two_policies_in_one_process(x, v):
    """In one program, and for one jitted function called both ways."""
    jitted = jax.jit(same)
    for first, second, count in (("xla", "im2col", 1), ("im2col", "xla", 1), ("im2col", "im2col", 0)):
        chain = lambda x, v: accelerate(jitted, first)(accelerate(jitted, second)(x, v), v)  # noqa: B023, E731
        assert left(chain, x, v) == count
        assert_close(chain(x, v), same(same(x, v), v))


def test_an_inner_word_goes_before_an_outer_one(x, v):
    assert left(accelerate(by_products(same), "xla"), x, v) == 0
    with accelerated("im2col"), accelerated("xla"):
        assert left(same, x, v) == 1


def test_as_a_context(x, v):
    wanted = same(x, v)
    with accelerated("im2col"):
        assert left(same, x, v) == 0
        assert_close(same(x, v), wanted)
    assert left(same, x, v) == 1

    @accelerated("im2col")
    def decorated(x, v):
        return same(x, v)

    assert left(decorated, x, v) == 0


def test_an_algorithm_of_ones_own_is_held_to_its_shapes(x, v):
    for result in (lambda y: y.transpose(0, 2, 1, 3), lambda y: None):
        wrong = jconv.Algorithm("wrong", lambda x, w, spec, result=result: result(_travelling(x, w, spec)))
        with pytest.raises((TypeError, ValueError), match="`algorithm`='wrong': its forward of"):
            accelerate(same, wrong)(x[:, :, 1:], v)


def test_an_algorithm_of_ones_own(x, v):
    asked = []

    def forward(x, w, spec):
        asked.append(spec)
        return lax.conv_general_dilated(x, w, spec.strides, spec.padding, dimension_numbers=NHWC)

    mine, other = (jconv.Algorithm("mine", forward, steps=steps) for steps in (lambda *_: (), lambda *_: ()))
    fast = jax.jit(accelerate(same, mine))
    assert_close(fast(x, v), same(x, v))
    assert len(asked) == 1, "and what it asks lax for is lax's"
    assert explain(accelerate(same, mine), x, v).rows[0].algorithm == "mine"
    jax.jit(accelerate(same, mine))(x, v)
    assert len(asked) == 1, "jit knows it again"
    jax.jit(accelerate(same, other))(x, v)
    assert len(asked) == 2, "another of the same name is another"


def test_what_the_named_one_cannot_compute_is_chosen(x, v):
    table = explain(accelerate(jax.grad(loss_of(conv)), "winograd"), x, normal(1, 6, 2, 3, 3))
    assert "winograd" not in {row.algorithm for row in table}, "it refuses strides and groups"
    assert all(row.taken for row in table)


@pytest.mark.parametrize(
    "take", [lambda a: accelerate(same, a), lambda a: accelerated(a).__enter__(), install]
)
def test_algorithms_that_are_not_known(take):
    with pytest.raises(ValueError, match=r"`algorithm`='best' is not known; choose one of auto, portable"):
        take("best")
    with pytest.raises(TypeError, match=r"`algorithm` must be a name or a jconv.Algorithm, got 3"):
        take(3)


def test_the_mark_is_the_threads_own(x, v):
    seen = []
    with accelerated("im2col"):
        thread = threading.Thread(target=lambda: seen.append(left(same, x, v)))
        thread.start()
        thread.join()
    assert seen == [1]


def test_threads_with_different_words(x, v):
    jitted, wanted, found = jax.jit(same), same(x, v), []

    def work(word):
        for _ in range(20):
            found.append(np.asarray(accelerate(jitted, word)(x, v)))

    threads = [threading.Thread(target=work, args=(word,)) for word in ("auto", "im2col", "xla", "shift")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for y in found:
        assert_close(y, np.asarray(wanted))


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


def test_a_jitted_function_is_compiled_once(x, v):
    """Also by an `accelerate` of its own each time, and by a function that is jitted after it."""
    compiled, other = [], normal(5, *x.shape)
    jax.monitoring.register_event_duration_secs_listener(
        listen := lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    triple = lambda x, v: same(x, v) * 3  # noqa: E731
    jitted = jax.jit(triple)
    try:
        for way in (lambda: accelerate(jitted), lambda: jax.jit(accelerate(triple))):
            first = way()
            first(x, v)
            assert compiled
            compiled.clear()
            way()(other, v)
            assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class Plain:
    """An object as most are: no pytree, equal to itself whatever its attributes are."""

    def __init__(self, w):
        self.w = w

    @accelerate
    def forward(self, x, scale=1):
        return same(x, self.w) * scale

    __call__ = forward


@pytest.mark.parametrize(
    "way", [lambda m: m, lambda m: m.forward, accelerate, lambda m: accelerate(m.forward),
            lambda m: accelerate(functools.partial(m.forward, scale=1))],
)  # fmt: skip
def test_objects_and_their_methods(way, x, v):
    """Marked as a method, too; a change of the object is seen."""
    model = Plain(v)
    fast = way(model)
    assert_close(fast(x), same(x, v))
    model.w = jnp.zeros_like(v)
    assert_close(fast(x), x)


def test_attributes_of_what_is_accelerated(x, v):
    fast = accelerate(jax.jit(same), "im2col")
    for text in (fast.lower(x, v).as_text(), fast.trace(x, v).lower().as_text()):
        assert "stablehlo.convolution" not in text
    assert fast.eval_shape(x, v).shape == x.shape
    with pytest.raises(AttributeError, match="nothing"):
        _ = fast.nothing
    model = Plain(v)
    model.kind = Plain  # callable, and no method
    assert accelerate(model).w is v
    assert accelerate(model).kind is Plain


@accelerate
def decorated(x, v):
    return same(x, v)


def test_what_is_decorated_travels_by_its_name(x, v):
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert_close(jax.jit(decorated)(x, v), same(x, v))


def test_it_travels(x, v):
    """By pickle, as multiprocessing sends it, with its word and with an algorithm of one's own."""
    for algorithm in ("im2col", jconv.Algorithm("travelling", _travelling)):
        fast = pickle.loads(pickle.dumps(accelerate(same, algorithm)))
        assert fast == accelerate(same, algorithm)
        assert_close(jax.jit(fast)(x, v), same(x, v))
    cloudpickle = pytest.importorskip("cloudpickle", reason="needs the extra [models]")
    closure = cloudpickle.loads(cloudpickle.dumps(by_products(lambda x: same(x, v))))
    assert left(closure, x) == 0


def _travelling(x, w, spec):
    return lax.conv_general_dilated(x, w, spec.strides, spec.padding, dimension_numbers=NHWC)


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
    assert_close(accelerate(accelerate(same))(x, v), same(x, v))
    assert left(by_products(by_products(same)), x, v) == 0


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


def test_the_place_of_a_call_of_jconv_is_the_call():
    def own(x, w):
        return jconv.conv2d(x, w)

    (row,) = explain(own, jnp.ones((1, 3, 9, 9)), jnp.ones((4, 3, 3, 3)))
    assert row.where == f"tests/test_accelerate.py:{own.__code__.co_firstlineno + 1}"


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_explain_says_is_what_is_lowered(name, x, v, monkeypatch):
    """The same problems and the same algorithms, asked at both ends; equal ones are lowered once."""
    grad = accelerate(jax.grad(loss_of(PROGRAMS[name]), (0, 1)))
    said = {(row.role, str(row.spec), row.algorithm) for row in explain(grad, x, v)}
    ran = runs(monkeypatch)
    jax.jit(lambda x, v: grad(x, v)).lower(x, v)
    assert ran == said


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
    assert left(grad, x, v) == 3
    install("im2col")
    install("im2col")
    assert left(grad, x, v) == 0
    assert_close(grad(x, v), wanted)
    assert_close(jax.vmap(jax.grad(loss_of(same)), (None, 0))(x, v[None])[0], wanted[0])
    uninstall()
    assert left(grad, x, v) == 3


@pytest.mark.usefixtures("clean")
def test_compiled_functions_do_not_outlive_it(x, v):
    """What was compiled before is not used while it is installed, nor what was then is afterwards."""
    asked = []

    def forward(x, w, spec):
        asked.append(spec)
        return lax.conv_general_dilated(x, w, spec.strides, spec.padding, dimension_numbers=NHWC)

    jitted = jax.jit(same)
    wanted = jitted(x, v)
    with installed(jconv.Algorithm("mine", forward)):
        assert_close(jitted(x, v), wanted)
        assert_close(same(x, v), wanted)
        assert explain(same, x, v).rows[0].algorithm == "mine"
    assert asked
    asked.clear()
    assert_close(jitted(x, v), wanted)
    assert_close(same(x, v), wanted)
    assert asked == []


@pytest.mark.usefixtures("clean")
def test_installed_for_a_while(x, v):
    with installed("im2col"):
        with installed("xla"):
            assert left(same, x, v) == 1
        assert left(same, x, v) == 0
        assert left(accelerate(same, "xla"), x, v) == 1, "a mark goes before it"
        assert explain(same, x, v).rows[0].algorithm == "im2col"
    assert left(same, x, v) == 1


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("around", [lambda: installed("im2col"), lambda: accelerated("im2col")])
@pytest.mark.parametrize("eager", [False, True])
def test_what_an_algorithm_asks_lax_for_is_laxs(x, w, around, eager):
    """Or "xla" would be jconv all the way down."""
    run = functools.partial(jconv.conv2d, groups=2, algorithm="xla")
    with around():
        with jax.disable_jit() if eager else contextlib.nullcontext():
            got = run(x, w)
        assert left(run, x, w) == 1
    assert_close(got, jconv.conv2d(x, w, groups=2, algorithm="im2col"))


@pytest.mark.usefixtures("clean")
def test_errors_while_installed_are_lax_errors(x, v):
    with installed(), pytest.raises((TypeError, ValueError), match="feature dimension"):
        lax.conv(x, v[:, :3], (1, 1), "SAME")


@pytest.mark.usefixtures("clean")
def test_install_holds_for_every_thread(x, v):
    seen = []
    install("im2col")
    thread = threading.Thread(target=lambda: seen.append(left(same, x, v)))
    thread.start()
    thread.join()
    assert seen == [0]


def test_a_precision_recorded_outside_stands():
    """lax keeps what it recorded; the place where it is lowered has no say."""
    x, w = jnp.ones((1, 2, 5, 5)), jnp.ones((3, 2, 3, 3))
    traced = jax.make_jaxpr(lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME"))(x, w)
    with jax.default_matmul_precision("highest"):
        (row,) = explain(accelerate(jax.extend.core.jaxpr_as_fun(traced)), x, w)
        text = jax.jit(accelerate(jax.extend.core.jaxpr_as_fun(traced), "im2col")).lower(x, w).as_text()
    assert row.spec.precision is None
    assert "HIGHEST" not in text


def test_a_version_of_jax_that_is_not_known_says_so(monkeypatch):
    monkeypatch.delattr(private.mlir, "_lowerings")
    with pytest.raises(ImportError, match=r"accelerate and install work with jax 0\.10 to 0\.12"):
        accelerate(same)


# -- what lax's transformations write is recognised ------------------------------------------------


def one(conv, **knobs):
    return lambda x, w: conv(x, w, (1, 1), "SAME", dimension_numbers=NHWC, **knobs)


def kernel_gradient(conv, **knobs):
    return lambda x, w, g: jax.vjp(lambda w: one(conv, **knobs)(x, w), w)[1](g)[0]


def strided(conv):
    return lambda x, w: conv(x, w, (2, 2), [(1, 1)] * 2, dimension_numbers=NHWC, feature_group_count=4)


def transposed(conv):
    return lambda x, w: conv(x, w, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), dimension_numbers=NHWC)


X5, W5, G5 = (jax.ShapeDtypeStruct(s, "float32") for s in ((3, 2, 9, 7, 4), (3, 3, 3, 4, 8), (3, 2, 9, 7, 8)))
X4, W4, G4 = (jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (X5, W5, G5))
DEPTHWISE = jax.ShapeDtypeStruct((3, 3, 1, 8), "float32")
WRITTEN = {  # a program of lax's or jconv's convolution, and its arguments
    "ensemble": (lambda c: jax.vmap(one(c)), X5, W5),
    "kernels": (lambda c: jax.vmap(one(c), (None, 0)), X4, W5),
    "inputs": (lambda c: jax.vmap(one(c), (0, None)), X5, W4),
    "gradients of an ensemble": (lambda c: jax.vmap(kernel_gradient(c)), X5, W5, G5),
    "per-example gradients": (lambda c: jax.vmap(kernel_gradient(c), (0, None, 0)), X5, W4, G5),
    "per-example depthwise gradients": (
        lambda c: jax.vmap(kernel_gradient(c, feature_group_count=4), (0, None, 0)), X5, DEPTHWISE, G5),
    "depthwise kernel gradient": (lambda c: kernel_gradient(c, feature_group_count=4), X4, DEPTHWISE, G4),
    "Hessian-vector product": (
        lambda c: lambda x, w: jax.jvp(jax.grad(lambda w: (one(c)(x, w) ** 2).sum()), (w,), (w,)), X4, W4),
    "batch groups": (lambda c: one(c, batch_group_count=2), X4, W4),
    "transposed": (transposed, X4, W4),
    "gradients of a transposed": (
        lambda c: jax.grad(lambda x, w: (transposed(c)(x, w) ** 2).sum(), (0, 1)), X4, W4),
    "gradients of a strided one": (
        lambda c: jax.grad(lambda x, w: (strided(c)(x, w) ** 2).sum(), (0, 1)), X4, DEPTHWISE),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_what_lax_writes_is_seen_as_what_it_is(name):
    """The same problems as where jconv's own primitives are transformed, and the same algorithms.

    A strided convolution that does not reach the last row and column has the gradient of one without them.
    """
    make, *args = WRITTEN[name]
    rows = [explain(make(conv), *args) for conv in (lax.conv_general_dilated, jconv.conv_general_dilated)]
    by_lax, ours = ([(r.role, _reached(r.spec), r.algorithm, r.count) for r in table] for table in rows)
    assert sorted(map(str, by_lax)) == sorted(map(str, ours))


def _reached(spec):
    """The spec with no more padding than its outputs see."""
    sides = zip(spec.spatial, spec.kernel, spec.strides, spec.out_spatial, spec.padding, strict=True)
    padding = tuple((lo, (p - 1) * s + k - h - lo) for h, k, s, p, (lo, _) in sides)
    return spec.replace(padding=padding) if set(spec.rhs_dilation + spec.lhs_dilation) == {1} else spec
