"""Existing programs, unchanged, on jconv: `accelerate` one function, or `install` for the process.

JAX writes every function down as a jaxpr, a list of equations, before it compiles it.  There a
convolution is one equation, `conv_general_dilated`, whoever wrote it: a layer of any library, JAX's own
gradient rules, vmap.  So the way is short:

    trace fn → jaxpr → replace each such equation by a call of jconv → evaluate the jaxpr

    takeover.py     one equation: what replaces it, or the reason why it stays
    rewrite.py      a whole jaxpr, and the jaxprs inside its equations
    policies.py     what a checkpoint keeps, decided by primitive, is still decided so
    rules.py        functions with derivatives of their own (custom_jvp, custom_vjp) keep them
    wrap.py         a function with pytrees and static arguments, traced once per kind of arguments
    static.py       what is not an array, and when a trace may be used again
    stateful.py     Flax nnx objects, which remember what happened inside
    table.py        what was found and what became of it
    install.py      the same replacement wherever the process traces a convolution
"""

from jconv.accelerate.install import install, installed, uninstall
from jconv.accelerate.table import Found, Table, explain
from jconv.accelerate.wrap import accelerate

__all__ = ["Found", "Table", "accelerate", "explain", "install", "installed", "uninstall"]
