"""`python -m jconv`: the command line.

Without a subcommand it does the main job (`jconv.bench.job`).  A subcommand is a module with

    add_arguments(parser)     adds its options to an `argparse.ArgumentParser`
    main(args) -> int         does the work and returns the exit status

and a line in `COMMANDS`; its `HELP`, or else the first line of its docstring, says what it is for.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import jconv
from jconv.bench import interrupts, job

COMMANDS: dict[str, str] = {  # what a user types: the module that does it
    "accuracy": "jconv.bench.accuracy",
    "bench": "jconv.bench.race",
    "explain": "jconv.lesson.command",
    "scaling": "jconv.bench.scaling",
    "tune": "jconv.bench.tuning",
    "verify": "jconv.bench.verify",
}
EXTRAS = {"rich": "cli", "matplotlib": "bench"}  # what is not there for `import jconv`: the extra it is in
EXTRAS |= dict.fromkeys(("equinox", "flax", "haiku", "keras", "optax"), "models")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the main job and, beneath it, of every subcommand."""
    parser = argparse.ArgumentParser("python -m jconv", description=job.DESCRIPTION, epilog=job.EPILOG)
    parser.add_argument("--version", action="version", version=f"jconv {jconv.__version__}")
    job.add_arguments(parser)
    parser.set_defaults(main=job.main)
    choices = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    for name, module in COMMANDS.items():
        _add(choices, name, importlib.import_module(module))
    return parser


def _add(choices: argparse._SubParsersAction, name: str, module: ModuleType) -> None:
    text = getattr(module, "HELP", None) or (module.__doc__ or "").strip().partition("\n")[0]
    command = choices.add_parser(name, help=text, description=text)
    module.add_arguments(command)
    command.set_defaults(main=module.main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 something disagreed, 2 wrong usage.

    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    try:
        with interrupts.insisting():
            args = build_parser().parse_args(argv)  # imports every subcommand, for a second
            return args.main(args)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return interrupts.INTERRUPTED
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"this needs {error.name}; install it with  pip install 'jconv[{extra}]'", file=sys.stderr)
        return 2


if __name__ == "__main__":
    interrupts.leave(main())
