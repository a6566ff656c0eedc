"""When an alert is over because people have decided on each of its dead letters."""

import pytest

from casewire.alerts.decided import all_closed
from casewire.alerts.troubles import Trouble
from casewire.dead_letters import Group, Letter
from schemas.dead_letter import DeadLetterState
from tests.alerts.test_troubles import report

DISCARDED = DeadLetterState(status="discarded", offset=0, by="x", at="", reason="", repair=None)


def letter(captured_id: str, *, closed: bool) -> Letter:
    return Letter(
        id=captured_id,
        key=b"",
        place=(0, 0),
        captured_id=captured_id,
        group=Group(domain="demo", stage="state", cause="invalid_field", path=""),
        kind="case",
        subject="c1",
        captured_at="",
        failed_at="",
        attempts=1,
        explanation="",
        state=DISCARDED if closed else None,
    )


@pytest.mark.parametrize(
    ("letters", "over"),
    [
        ([("e1", True), ("e2", True)], True),
        ([("e1", True), ("e2", False)], False),
        ([("e2", True)], False),  # it tells of e1, which stopped the worker and became no letter
        ([], False),
    ],
)
def test_it_is_over_when_none_is_open_and_none_is_missing(
    letters: list[tuple[str, bool]], over: bool
) -> None:
    found = [letter(captured_id, closed=closed) for captured_id, closed in letters]
    assert all_closed(Trouble.of(report(0, "e1")), found) == over
