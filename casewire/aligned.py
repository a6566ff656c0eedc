"""Rows of text in columns, as wide as they are: also for what reads the output by lines."""

from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line a row, each column as wide as its widest cell; all rows have as many cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def to_second(time: str) -> str:
    """Return a canonical time without its fraction."""
    return time.partition(".")[0] + "Z" if "." in time else time
