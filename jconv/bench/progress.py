"""What is going on, while it goes on: on stderr, so that what is printed stays what was asked for."""

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[str], None]  # one more is done, and what is next


@contextlib.contextmanager
def bar(title: str, total: int, silent: bool = False) -> Iterator[Advance]:
    """A progress bar on a terminal, gone when done; elsewhere one line that says what is going on.

    Args:
      title: what is going on.
      total: how many steps it takes.
      silent: no line where there is no terminal or no rich: for work whose rows are progress enough.

    Yields:
      A function to call after each step, with a word on the next one or "".

    >>> with bar("counting", 2) as advance:
    ...     for number in (1, 2):
    ...         advance(f"to {number}")
    """
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        if not silent:
            print(f"{title} …", file=sys.stderr, flush=True)
        yield lambda what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True, highlight=False, markup=False)
    with Progress(*columns, TextColumn("{task.fields[what]}"), console=console, transient=True,
                  redirect_stdout=sys.stdout.isatty()) as shown:  # fmt: skip
        task = shown.add_task(title, total=total, what="")
        yield lambda what: shown.update(task, advance=1, what=what)
