"""Dated measurements stand in docs/measured.md and nowhere in the code, and a command prints each again."""

import re
from pathlib import Path

import pytest

import jconv
from jconv.__main__ import build_parser

PACKAGE = Path(jconv.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "measured.md").read_text(encoding="utf-8")
DATED = re.compile(r"\b20\d\d-\d\d\b|\b(?:AMD|Intel|NVIDIA) \w+,? (?:\d|jax)")
COMMAND = re.compile(r"`python -m jconv (.+?)`", re.DOTALL)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_date_and_no_machine_stands_in_the_code(path):
    assert not DATED.findall(path.read_text(encoding="utf-8"))


def test_the_pattern_finds_what_it_is_for():
    assert DATED.search("(2026-11, jax 0.10)")
    assert DATED.search("on an AMD EPYC, 2 cores")


def test_a_command_stands_over_every_table_with_numbers():
    sections = [
        part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE) if re.search(r"^\|.* \d", part, re.M)
    ]
    assert sections
    for section in sections:
        assert COMMAND.search(section.partition("\n|")[0]) or section.startswith("# What"), section[:200]


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`(\w+/\w+\.py)`", PAGE)) - {"tests/test_expiry.py"}
    assert len(named) > 6
    assert not [name for name in named if not (PACKAGE / name).is_file()]


def test_the_commands_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = COMMAND.findall(PAGE)
    assert len(commands) == 9
    for command in commands:
        build_parser().parse_args(command.split())
