from hypothesis import given, strategies as st

from schemas.envelope import Headers
from schemas.times import from_microseconds
from streams.ages import ages
from tests.streams.made import Made

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
LIVE = ("casewire-origin", b"live")


def aged(*headers: Headers) -> list[float]:
    return list(ages([Made(b"{}", headers=each) for each in headers], NOW))


def said(name: str, seconds: int) -> tuple[str, bytes]:
    return name, from_microseconds(NOW - seconds * SECOND).encode()


@given(st.lists(st.integers(-10, 10**7)))
def test_each_record_is_as_old_as_hq_says_and_none_is_of_tomorrow(seconds: list[int]) -> None:
    found = aged(*([LIVE, said("received-on", age)] for age in seconds))
    assert found == [max(0, age) for age in seconds]


def test_a_form_tells_when_it_was_received_and_a_case_when_it_was_modified() -> None:
    case, form = said("server-modified-on", 5), said("received-on", 9)
    assert aged([LIVE, case], [case, LIVE, form], [form, LIVE]) == [5, 9, 9]


def test_what_has_no_time_or_is_a_replay_is_left_out() -> None:
    replay = ("casewire-origin", b"replay")
    assert aged([LIVE], [replay, said("received-on", 5)], [said("received-on", 5)]) == []
    for text in (b"", b"soon", b"2026-01-01", b"2026-01-01T00:00:00", b"\xff"):
        assert aged([LIVE, ("received-on", text)]) == []
