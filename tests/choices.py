"""What "auto" chooses for every layer of the table: `python tests/choices.py > tests/choices.txt`.

A change of a constant or of a rule shows in the diff of that file.  Nothing here depends on the machine:
oneDNN is taken to be there, or not.
"""

import unittest.mock
from collections.abc import Iterator

from jconv.bench.layers import LAYERS
from jconv.choice.candidates import Policy
from jconv.choice.pick import _choose
from jconv.runtime import verified
from jconv.spec import ROLES, ConvSpec
from jconv.spec.roles import canonical

POLICIES = {"with oneDNN": Policy(), "portable": Policy("portable", "as if there were none")}


def choices() -> Iterator[str]:
    """A line for every layer and dtype: the three roles channels last and, where it differs, first."""
    for what, policy in POLICIES.items():
        for dtype in ("float32", "bfloat16"):
            yield f"\n## {what}, {dtype}: forward, grad_input, grad_kernel\n"
            for layer in LAYERS:
                spec = layer.spec.with_dtype(dtype)
                last, first = (_names(spec.replace(channels_first=hint), policy) for hint in (False, True))
                differs = f"  |  NCHW: {first}" if first != last else ""
                yield f"{layer.family:13}{layer.name:32}{last}{differs}"


def _names(spec: ConvSpec, policy: Policy) -> str:
    with unittest.mock.patch.multiple(verified, refusal=lambda: None, refusal_of=lambda *dtypes: None):
        taken = [_choose.__wrapped__(*canonical(spec, role), "cpu", policy, None) for role in ROLES]
    return ", ".join(choice.algorithm.name for choice in taken)


if __name__ == "__main__":
    print("\n".join(choices()).strip())
