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

**Which to pick.**

1. *Batch*, as long as every device gets at least one image and one image fits: what is sent does not
   depend on the images at all, and it overlaps with the backward pass.
2. *Groups*, for depthwise and grouped layers that follow each other: nothing is ever sent.
3. *Space*, when one image does not fit a device or the batch is smaller than the mesh.  Borders shrink
   more slowly than areas: cut first the longest side, both sides from about 16 devices on, batch before
   either.  Keep (kernel − 1)·dilation well under the side of a shard, or a halo has several hops.
4. *Channels*, when the kernels do not fit: late layers, small images, wide channels.  Cut output
   channels in one layer and input channels in the next; that is one all-reduce for the two.

`python -m jconv scaling` prints what the first and third cost for networks you know, up to 4096 devices.

**By hand.**  `conv` and `conv_transpose` of this module are for `jax.shard_map`: they see a shard of an
image that is cut in space, fetch exactly the rows and columns that their geometry needs from the neighbours,
and return the shard of the result.  `halo_bytes` says how much that is.
"""

from jconv.mesh.halo import halo_bytes
from jconv.sharding.conv import conv, conv_transpose

__all__ = ["conv", "conv_transpose", "halo_bytes"]
