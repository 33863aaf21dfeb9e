"""Dated measurements stand in docs/measured.md and nowhere in the code, and each names a file that exists."""

import re
from pathlib import Path

import pytest

import jconv
from jconv.__main__ import build_parser

PACKAGE = Path(jconv.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "measured.md").read_text(encoding="utf-8")
DATED = re.compile(r"\b20\d\d-\d\d\b|\b(?:AMD|Intel|NVIDIA) \w+,? (?:\d|jax)")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_date_and_no_machine_stands_in_the_code(path):
    assert not DATED.findall(path.read_text(encoding="utf-8"))


def test_the_pattern_finds_what_it_is_for():
    assert DATED.search("(2026-11, jax 0.10)")
    assert DATED.search("on an AMD EPYC, 2 cores")


def test_every_file_that_a_number_stands_behind_exists():
    rows = [row for row in PAGE.splitlines() if re.search(r"\| `\w+/\w+\.py`", row)]
    assert len(rows) > 60
    named = set(re.findall(r"`(\w+/\w+\.py)`", PAGE)) - {"tests/test_expiry.py"}
    missing = [name for name in named if not (PACKAGE / name).is_file()]
    assert not missing


def test_the_commands_are_understood():
    commands = re.findall(r"`python -m jconv (.+?)`", PAGE)
    assert len(commands) == 5
    for command in commands:
        build_parser().parse_args(command.split())
