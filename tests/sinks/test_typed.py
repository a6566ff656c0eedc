import pytest

from sinks.typed import kinds_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("5", "number"), ("-0.50", "number"), ("0", "number"),
        ("2026-11-22", "date"), ("2026-11-22T10:00:00.123Z", "time"),
        ("2015-04-17T20:14:34.139", "time"), ("2026-11-22T10:00:00.000+03", "time"),
        ("20.09 40.1 20 40", "latitude"), ("-1.5 170.25", "latitude"),
    ],
)  # fmt: skip
def test_what_a_text_shows(text: str, kind: str) -> None:
    assert kinds_of(text)[0] == kind


@pytest.mark.parametrize(
    "text",
    ["", "0712345", "1e5", "1,5", " 5", "5\n", "٣", "-", "1.", "2026-13-01", "0000-01-01",
     "22/11/2026", "10:00", "1 2 3", "1 2 3 4", "95.0 40.0", "2026-11-22T25:00:00Z"],
)  # fmt: skip
def test_what_is_only_a_text(text: str) -> None:
    assert kinds_of(text) == ()
