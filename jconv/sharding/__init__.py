"""Convolutions on more than one device: which sharding to pick, and images cut in space.

**Nothing to do.**  Under `jax.jit` with sharded arrays, jconv's functions keep whatever sharding they
are given, in the classic mode and with sharding in types, and inside `jax.shard_map` they are ordinary
functions of the shard.  What a cut costs, of one convolution and its two gradients:

    cut                        sent forward     sent by grad_input   sent by grad_kernel
    batch                      nothing          nothing              all-reduce of ∂w
    output channels            nothing          all-reduce of ∂x     nothing
    input channels             all-reduce of y  nothing              nothing
    groups                     nothing          nothing              nothing
    space (height, width, …)   halo of x        halo of g            halo of x, all-reduce of ∂w

docs/sharding.md says which to pick, and `python -m jconv scaling` what cuts of the batch and of space cost
for networks you know, up to 4096 devices.

**By hand.**  `conv` and `conv_transpose` of this module are for `jax.shard_map`: they see a shard of an
image that is cut in space, fetch exactly the rows and columns that their geometry needs from the neighbours,
and return the shard of the result.  `halo_bytes` says how much that is.
"""

from jconv.mesh.halo import halo_bytes
from jconv.sharding.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose", "halo_bytes"]
