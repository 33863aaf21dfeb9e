"""Existing programs, unchanged, on jconv: `accelerate` one function, or `install` for the process.

JAX takes a program apart twice.  First it traces: the program becomes equations, and grad, vmap, jit and
all else that works on programs works on these.  Then each equation is lowered: a rule, one for each
primitive, writes it in the compiler's language.  A convolution is one equation until then,
`conv_general_dilated`, whoever wrote it: a layer of any library, JAX's own gradient rules, vmap.

So the equations can stay as they are, and only the rule has to change.  Everything that understands lax
goes on understanding the program, and what is lowered is the convolution that is left after grad and vmap,
with the platform known: just what a choice between algorithms needs.  Which equations are meant has to be
said at the first step and be known at the second.  JAX has a place for it, metadata for the compiler: a
text that is set in a context and kept by every equation traced there and by whatever is derived from it;
and as it belongs to the key of jit's caches, a program with the text and one without are never mixed up.

    trace fn under the mark  →  JAX does what it does  →  lower a marked convolution as jconv's own

    wrap.py       accelerate, accelerated: set the mark
    policy.py     what the mark's word means: a policy or an algorithm
    lowering.py   the rule that reads it; install: the same rule without a mark

`explain` looks through a traced program and says, for every equation, what the rule will make of it.
jconv's own functions are no part of this: they bind primitives of their own, whatever the mark.
"""

from jconv.accelerate.lowering import install, installed, uninstall
from jconv.accelerate.wrap import accelerate, accelerated

__all__ = ["accelerate", "accelerated", "install", "installed", "uninstall"]
