"""One of the processes that `test_processes.py` starts: trains a small network on a mesh across all of them.

    python training_process.py RANK PROCESSES PORT RESULT [--die]

Writes the losses and kernels of two steps, data-parallel and spatially parallel, to RESULT from rank 0.
"""

import functools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jconv
import jconv.sharding

STEPS, RATE = 2, 0.1


def data():
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((4, 16, 6, 3)), rng.standard_normal((4, 8, 6, 2))
    kernels = rng.standard_normal((3, 3, 3, 5)) / 5, rng.standard_normal((3, 3, 5, 2)) / 7
    return jax.tree.map(lambda v: v.astype("float32"), (x, target, kernels))


def network(conv, x, kernels):
    first, second = kernels
    hidden = jax.nn.relu(conv(x, first, padding=1, stride=(2, 1), layout="NHWC"))
    return conv(hidden, second, padding=1, layout="NHWC")


def loss(conv, kernels, x, target):
    return ((network(conv, x, kernels) - target) ** 2).sum() / 96


def descend(value_and_grad, kernels, x, target):
    value, grads = value_and_grad(kernels, x, target)
    return value, jax.tree.map(lambda k, g: k - RATE * g, kernels, grads)


def data_parallel(mesh):
    """Nothing but shardings: jit sums the kernel gradients over the batch."""
    return jax.jit(functools.partial(descend, jax.value_and_grad(functools.partial(loss, jconv.conv2d))))


def spatially_parallel(mesh):
    """Rows of the image over the mesh: halos in, partial losses and gradients out."""
    conv = functools.partial(jconv.sharding.conv, spatial_axes=("devices", None))
    cut = P(None, "devices")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), cut, cut), out_specs=P())
    def whole_loss(kernels, x, target):
        return jax.lax.psum(loss(conv, kernels, x, target), "devices")

    return jax.jit(functools.partial(descend, jax.value_and_grad(whole_loss)))


def train(step, mesh, cut):
    x, target, kernels = data()
    put = lambda v, spec: jax.make_array_from_callback(v.shape, NamedSharding(mesh, spec), lambda i: v[i])  # noqa: E731
    x, target = put(x, cut), put(target, cut)
    kernels = jax.tree.map(lambda k: put(k, P()), kernels)
    for _ in range(STEPS):
        value, kernels = step(kernels, x, target)
    return [np.asarray(v) for v in (value, *kernels)]


def main(rank, processes, port, result, die=""):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    patience = dict(heartbeat_timeout_seconds=4 if die else 10)
    jax.distributed.initialize(f"localhost:{port}", int(processes), int(rank), **patience)
    mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    by_data = train(data_parallel(mesh), mesh, P("devices"))
    if die and rank == "1":
        os._exit(7)
    by_space = train(spatially_parallel(mesh), mesh, P(None, "devices"))
    if rank == "0":
        np.savez(result, *by_data, *by_space, devices=jax.device_count())
    jax.distributed.shutdown()


def alone():
    """The same two steps in this process on one device, nothing sharded."""
    x, target, kernels = data()
    for _ in range(STEPS):
        value, kernels = data_parallel(None)(jax.tree.map(jnp.asarray, kernels), x, target)
    return [np.asarray(v) for v in (value, *kernels)]


if __name__ == "__main__":
    main(*sys.argv[1:])
