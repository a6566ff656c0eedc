"""A message says what HQ's own mails say, and no value of the data."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from casewire.alerts.messages import headline, message, what_is_wrong
from casewire.alerts.reports import Target, of_letter, of_silence, signs
from casewire.alerts.troubles import Trouble, told
from schemas.alert import Alert
from schemas.dead_letter import DeadLetter
from schemas.delivery import BatchDelivery
from schemas.errors import Rejection, TargetError
from streams.alarms import of_target
from streams.dead_letters import dead_letter
from streams.ledger import Ledger
from tests.streams.made import Made, captured, state_record

AT = "2026-11-22T02:14:00.000000Z"
WORDS = "Key (national_id)=(A1234567) already exists"
SAFE = {"sink:warehouse": Target("postgresql://db:5432/x", errors_are_safe=True)}
GUARDED = {"sink:warehouse": Target("postgresql://db:5432/x", errors_are_safe=False)}


def letter(stage: str, record: Made, why: Rejection) -> tuple[DeadLetter, Made]:
    out = dead_letter(record, stage, why, failed_at=AT)
    return DeadLetter.from_json(out.value or b""), Made(out.value, out.key, out.headers)


def refused() -> tuple[DeadLetter, Made]:
    record = replace(state_record("c1", 1), topic="casewire.case-state")
    headers = [*record.headers, ("ce_subject", b"c1")]
    why = Rejection("conflict", "SQLSTATE 23505", "properties.national_id", WORDS)
    return letter("sink:warehouse", replace(record, headers=headers), why)


def opened(report: Alert) -> Trouble:
    return told(Trouble.of(report), "opened", AT, ["mail"])


def test_a_trouble_that_is_open_again_is_not_called_recovered_by_what_is_wrong() -> None:
    over = told(opened(of_letter(*refused(), AT, GUARDED)), "recovered", AT, [])
    assert headline(over) == f"recovered: {what_is_wrong(over)}"
    assert what_is_wrong(over).startswith("demo: ")


def test_the_words_of_a_target_are_told_only_where_they_are_declared_safe() -> None:
    for targets, expected in ((SAFE, True), (GUARDED, False)):
        text = message([opened(of_letter(*refused(), AT, targets))], 15).body
        assert (WORDS in text) == expected
        assert "A1234567" not in text or expected


def test_it_says_what_hqs_mails_say_and_how_to_stop_it() -> None:
    made = message([opened(of_letter(*refused(), AT, GUARDED))], 15)
    assert made.title == "[Casewire] demo: case-state fail at sink:warehouse: conflict"
    for part in (
        "SQLSTATE 23505 (at properties.national_id).",
        "Project space: demo",
        "Address: postgresql://db:5432/x",
        "Payload ID: case c1",
        "2026-11-22 02:14 UTC",
        "dead-letters replay --domain=demo --stage=sink:warehouse --cause=conflict",
        "Why am I getting this?",
        "casewire alerts mute demo/sink:warehouse/conflict/case-state --for 2h",
    ):
        assert part in made.body
    assert made.thread == "demo/sink:warehouse/conflict/case-state"


def test_the_message_in_the_documentation_is_what_comes() -> None:
    record = captured(b"{}", headers=[("server-modified-on", b"x")])
    why = Rejection(
        "invalid_field", "the time is more than 24 hours after the capture", "server_date_modified"
    )
    report = of_letter(*letter("decode", record, why), AT, {})
    made = message([opened(msgspec.structs.replace(report, captured_ids=["ID"]))], 15)
    documented = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    documented = documented.replace("01a203bc-7fff-7914-8105-6fd0c72a626e", "ID")
    documented = documented.replace("2026-11-22 14:50 UTC", "2026-11-22 02:14 UTC")
    assert f"Subject: {made.title}\n\n{made.body}" in documented


def test_many_troubles_are_one_message() -> None:
    many = [opened(of_silence(f"d{n}", "cases", "2026-11-21 10:00 UTC", AT)) for n in range(30)]
    made = message([*many[:29], told(many[29], "recovered", AT, [])], 15)
    assert made.title == "[Casewire] 30 alerts: 29 new, 1 recovered"
    assert "d0: no cases come any more" in made.body
    assert "and 10 more" in made.body


@pytest.mark.parametrize("cause", ["target_unavailable", "target_refuses"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_target_that_is_down_is_told_with_class_and_code(cause: str, safe: bool) -> None:
    class RefusalError(Exception):
        sqlstate = "42501"

    error = TargetError("it refuses to work", target_error=WORDS)
    error.__cause__ = RefusalError()
    report = of_target("warehouse", cause, error, safe=safe, raised_at=AT)  # type: ignore[arg-type]
    text = message([opened(report)], 15).body
    assert "(RefusalError, 42501)" in text
    assert (WORDS in text) == safe
    assert "nothing is lost" in text


def batch(stage: str, topic: str, *outcomes: str) -> BatchDelivery:
    ledger = Ledger(stage, written="written")
    for number, outcome in enumerate(outcomes):
        record = Made(b"{}", f"d{number}/c1".encode(), [], topic)
        ledger.add(record, outcome)
    return BatchDelivery.from_json(ledger.records()[0].value or b"")


def test_a_sink_that_writes_again_says_so_for_what_its_target_refused() -> None:
    trouble = opened(of_letter(*refused(), AT, SAFE))
    down = msgspec.structs.replace(trouble, domain="", target="warehouse")
    written = list(signs(batch("sink:warehouse", "casewire.case-state", "written")))
    assert [sign.domain for sign in written] == ["d0"]
    assert written[0].answers(down)
    assert not written[0].answers(trouble)
    assert list(signs(batch("sink:warehouse", "casewire.case-state", "dead", "superseded"))) == []


def test_what_is_judged_was_decoded_and_sent() -> None:
    stages = {sign.stage for sign in signs(batch("state", "casewire.forms", "applied"))}
    assert stages == {"state", "decode", "ingress"}
    assert [s.stage for s in signs(batch("state", "casewire.case-changes", "applied"))] == ["state"]
