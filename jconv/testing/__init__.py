"""What a test of convolutions needs: the checks of an algorithm, the bound on errors, the table of cases."""

from jconv.spec.tolerance import tolerance
from jconv.testing import cases
from jconv.testing.check import check_algorithm

__all__ = ["cases", "check_algorithm", "tolerance"]
