"""What several test files compute or compare with: algorithms and lax on canonical arrays, and jaxprs."""

from collections.abc import Iterator

import jax
import numpy as np
from jax import lax

from jconv.algorithms.record import evaluate
from jconv.calculus import primitives
from jconv.mesh import partition
from jconv.runtime import verified
from jconv.spec import ConvSpec, Role
from jconv.testing import cases


def compiled(algorithm, role, a, b, spec):
    """What `evaluate` computes, as one program: step by step every operation is compiled on its own."""
    return jax.jit(lambda a, b: evaluate(algorithm, role, a, b, spec))(a, b)


def lax_forward(x, w, spec: ConvSpec):
    """lax's convolution of channels-last arrays."""
    n = spec.ndim
    numbers = lax.ConvDimensionNumbers(
        (0, n + 1, *range(1, n + 1)), (n + 1, n, *range(n)), (0, n + 1, *range(1, n + 1))
    )
    return lax.conv_general_dilated(
        x, w, spec.strides, spec.padding, spec.lhs_dilation, spec.rhs_dilation, numbers, spec.groups
    )


def lax_role(role: Role, a, b, spec: ConvSpec):
    """lax's own derivative where `role` is one."""
    if role == "forward":
        return lax_forward(a, b, spec)
    if role == "grad_input":
        x = jax.numpy.zeros(spec.x_shape, a.dtype)
        return jax.vjp(lambda x: lax_forward(x, b, spec), x)[1](a)[0]
    w = jax.numpy.zeros(spec.w_shape, a.dtype)
    return jax.vjp(lambda w: lax_forward(a, w, spec), w)[1](b)[0]


def looped(role: Role, a, b, spec: ConvSpec, a_axis, b_axis) -> np.ndarray:
    """The reference once per example, stacked along axis 0."""
    size = next(v.shape[axis] for v, axis in ((a, a_axis), (b, b_axis)) if axis is not None)

    def nth(v, axis, i):
        return np.asarray(v) if axis is None else np.take(np.asarray(v), i, axis)

    each = [(nth(a, a_axis, i), nth(b, b_axis, i)) for i in range(size)]
    return np.stack([cases.reference(role, *pair, spec) for pair in each])


def equations(jaxpr) -> Iterator:
    """Every equation of a jaxpr and of the jaxprs inside its equations."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(inner)


def convolutions(fn, *args) -> list:
    """The jconv primitives that `fn` binds, in order: (role, spec) each."""
    found = [e for e in equations(jax.make_jaxpr(fn)(*args)) if e.primitive.name.startswith("jconv_")]
    return [(e.primitive.name.removeprefix("jconv_"), e.params["spec"]) for e in found]


def runs(monkeypatch) -> set:
    """What is run from now on, as (role, spec in words, algorithm): filled while programs are lowered."""
    seen = set()
    for module in (primitives, partition):

        def spy(algorithm, role, a, b, spec, evaluate=module.evaluate):
            seen.add((role, str(spec), algorithm.name))
            return evaluate(algorithm, role, a, b, spec)

        monkeypatch.setattr(module, "evaluate", spy)
    return seen


def runs_here(algorithm, dtype="float32") -> bool:
    """Whether this machine has what the algorithm needs: oneDNN is not everywhere."""
    dtype = "float32" if dtype == "bfloat16" else dtype  # which stands in for it
    return algorithm.portable or not (verified.refusal() or verified.refusal_of(dtype, dtype))
