"""What a text may be beside a text: the columns of typed views (pure).

Nothing says what type a property or answer has; what comes shows it. A typed column is added when a
value of its kind is seen, and stays: the text is beside it, and what is not of the kind is null in
it, so that no value is ever in the way of another. Patterns are for Python and PostgreSQL alike.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

TypedKind: TypeAlias = Literal["number", "date", "time", "latitude", "longitude"]

#: No leading zeros: those are of codes and telephone numbers.
NUMBER: Final = r"^-?(0|[1-9][0-9]{0,29})([.][0-9]{1,30})?$"
DATE: Final = r"^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
#: Without a zone it is UTC, as HQ gives times (protocol.md §6.4).
TIME: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?"
    r"(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?$"
)
#: `latitude longitude altitude accuracy` (protocol.md §6.2). The points tell it from the choices of
#: a question with several.
POINT: Final = (
    r"^-?([0-8]?[0-9]|90)[.][0-9]{1,30} -?([0-9]{1,2}|1[0-7][0-9]|180)[.][0-9]{1,30}"
    r"( -?[0-9]{1,30}([.][0-9]{1,30})?){0,2}$"
)

_KINDS: Final[Sequence[tuple[re.Pattern[str], Sequence[TypedKind]]]] = (
    (re.compile(NUMBER), ("number",)),
    (re.compile(DATE), ("date",)),
    (re.compile(TIME), ("time",)),
    (re.compile(POINT), ("latitude", "longitude")),
)
_FIRST: Final = frozenset("-0123456789")


def kinds_of(text: str) -> Sequence[TypedKind]:
    """Return the kinds of column that would show something for the text."""
    if text[:1] in _FIRST:
        for pattern, kinds in _KINDS:
            if pattern.match(text) and text[-1] != "\n":
                return kinds
    return ()
