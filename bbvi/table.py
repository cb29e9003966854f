"""A table that prints well in a terminal and in a notebook."""

import html
from collections.abc import Mapping, Sequence

import numpy as np


class Table:
    """Named rows and columns of numbers or words.

    Attributes:
        names: the rows' names.
        columns: arrays by column name, one entry a row.
        note: printed below.
    """

    def __init__(self, names: Sequence[str], columns: Mapping[str, np.ndarray], note: str = ""):
        self.names = list(names)
        self.columns = dict(columns)
        self.note = note

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def __len__(self) -> int:
        return len(self.names)

    def row(self, name: str) -> dict:
        """One row as a dictionary."""
        i = self.names.index(name)
        return {column: values[i] for column, values in self.columns.items()}

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._cells()

        def line(row, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"

        rows = "".join(line(row, "td") for row in body)
        note = f"<pre>{html.escape(self.note)}</pre>" if self.note else ""
        return f"<table><thead>{line(head, 'th')}</thead><tbody>{rows}</tbody></table>{note}"

    def _cells(self) -> list[list[str]]:
        texts = [_format(values) for values in self.columns.values()]
        head = ["", *self.columns]
        body = [[n, *row] for n, row in zip(self.names, zip(*texts, strict=True), strict=True)]
        return [head, *body]


def _format(values: np.ndarray) -> list[str]:
    if values.dtype.kind not in "fc":
        return [str(v) for v in values]
    return [_number(float(v)) for v in values]


def _number(x: float) -> str:
    """Three significant digits, plain where that stays short."""
    if not np.isfinite(x):
        return str(x)
    if x != 0 and not 1e-3 <= abs(x) < 1e6:
        return f"{x:.2e}"
    digits = 2 if x == 0 else max(0, 2 - int(np.floor(np.log10(abs(x)))))
    return f"{x:.{digits}f}"
