"""What prints as a table: aligned text, or HTML in a notebook."""

import html
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar


class Rows:
    """A sequence of rows, each of which says its `cells()` as text, and a line that sums them up."""

    headings: ClassVar[tuple[str, ...]]
    numbers: ClassVar[tuple[str, ...]] = ()  # the headings of columns aligned at the last digit
    rows: tuple[Any, ...]

    @property
    def summary(self) -> str:
        """The sums."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return self.summary
        lines = [self.headings, *(row.cells() for row in self.rows)]
        columns = [
            [f"{cell:{'>' if column[0] in self.numbers else '<'}{max(map(len, column))}}" for cell in column]
            for column in zip(*lines, strict=True)
        ]
        return "\n".join([*("  ".join(line).rstrip() for line in zip(*columns, strict=True)), self.summary])

    def _repr_html_(self) -> str:
        def tr(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head, body = tr(self.headings, "th"), "".join(tr(row.cells(), "td") for row in self.rows)
        caption = f"<caption>{html.escape(self.summary)}</caption>"
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"
