"""How alerts read (pure): what HQ's own notification mails say, and what to do (protocol.md §5)."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from casewire.alerts.reports import SILENCE
from casewire.alerts.troubles import Trouble

#: More troubles than these in one message are only counted.
_SHOWN: Final = 20
_RULE: Final = "\n" + "-" * 60 + "\n\n"

_LETTERS: Final = """\
nothing is lost. What failed is kept as dead letters, and nothing waits for them."""
_LETTERS_COMMANDS: Final = """
  casewire dead-letters list --each {chosen}
  casewire dead-letters show {letter}
Mend the cause, then send them on: casewire dead-letters replay {chosen}"""
_TARGET: Final = """\
nothing is lost, and other sinks go on. See whether the target runs, can be reached, and
lets Casewire in; casewire doctor tries it. The sink goes on by itself where it was."""
_FLOOD: Final = """\
nothing is lost, but the worker stands still. Deploy what was there before, or mend it.
docs/operate.md, "A limit on dead letters", says more."""
_SILENT: Final = """\
see in CommCare HQ, Project Settings > Data Forwarding Records, whether requests fail or
wait, and whether the forwarder is paused. HQ tries for about five days, then they are gone.
casewire doctor says whether this side is well. If nobody has worked, nothing is wrong."""
_STALLED: Final = """\
nothing is lost, it waits in Kafka. See whether that process runs, and what its log
says; casewire doctor lists what does not."""
#: By cause; dead letters have the others.
_ADVICE: Final[Mapping[str, str]] = {
    "target_unavailable": _TARGET,
    "target_refuses": _TARGET,
    "stalled": _STALLED,
    SILENCE: _SILENT,
}


@dataclass(frozen=True, slots=True)
class Message:
    """`thread` is the same for all messages of one trouble, empty if it is of several."""

    title: str
    body: str
    thread: str


def message(troubles: Sequence[Trouble], interval_minutes: int) -> Message:
    """Return one message that tells the latest of each of some troubles."""
    parts = [told_text(each) for each in troubles[:_SHOWN]]
    if len(troubles) > _SHOWN:
        parts.append(f"and {len(troubles) - _SHOWN} more: casewire alerts list\n")
    body = _RULE.join([*parts, reasons(troubles, interval_minutes)])
    if len(troubles) == 1:
        return Message(f"[Casewire] {headline(troubles[0])}", body, troubles[0].group)
    return Message(f"[Casewire] {len(troubles)} alerts: {_summary(troubles)}", body, "")


def headline(trouble: Trouble) -> str:
    """Return one line that says what, where, and whether it is over."""
    prefix = {"updated": "still: ", "recovered": "recovered: "}.get(trouble.told, "")
    return f"{prefix}{what_is_wrong(trouble)}"


def what_is_wrong(trouble: Trouble) -> str:
    """Return one line that says what and where."""
    return f"{trouble.domain}: {_what(trouble)}" if trouble.domain else _what(trouble)


def _what(trouble: Trouble) -> str:
    sink = trouble.stage.removeprefix("sink:")
    if trouble.cause == SILENCE:
        return f"no {trouble.target} come any more"
    if trouble.cause == "stalled":
        return f"{trouble.target} does not go on"
    if trouble.cause == "target_unavailable":
        return f"the target of sink {sink} is down"
    if trouble.cause == "target_refuses":
        return f"the target of sink {sink} refuses to work, the sink has stopped"
    return f"{trouble.target} fail at {trouble.stage}: {trouble.cause}"


def told_text(trouble: Trouble) -> str:
    """Return what to tell of one trouble."""
    lines = [headline(trouble), "", _sentence(trouble)]
    if trouble.target_error:
        lines.append(f"The target said: {trouble.target_error}")
    facts = {
        "Project space": trouble.domain or "not of a single one",
        "Address": trouble.address,
        "Payload ID": ", ".join(trouble.subjects),
        "Captured event": ", ".join(trouble.captured_ids),
        "Failures": str(trouble.count) if trouble.captured_ids else "",
        "When": _span(_minute(trouble.since), _minute(trouble.last)),
        "Group": trouble.group,
    }
    lines += ["", *(f"{name}: {value}" for name, value in facts.items() if value)]
    if trouble.told != "recovered":
        commands = _commands(trouble) if is_of_letters(trouble) else ""
        lines += ["", f"What to do: {advice(trouble)}{commands}"]
    return "\n".join(lines) + "\n"


def _sentence(trouble: Trouble) -> str:
    if trouble.told != "recovered":
        return f"{trouble.text[:1].upper()}{trouble.text[1:]}."
    if trouble.captured_ids and trouble.mended > trouble.last:
        return "Nothing more has failed so, and all that had failed has been replayed or discarded."
    if trouble.captured_ids:
        return (
            "Nothing more has failed so, and events of the same kind have passed since. What had "
            "failed is still kept: casewire dead-letters list."
        )
    if trouble.passed > trouble.last:
        return "It is over: events pass again."
    return "It is over: nothing waits any more."


def advice(trouble: Trouble) -> str:
    """Return what to do about a trouble, in sentences; the first begins with a small letter."""
    if _is_flood(trouble):
        return _FLOOD
    return _ADVICE.get(trouble.cause, _LETTERS)


def is_of_letters(trouble: Trouble) -> bool:
    """Whether a trouble is that of dead letters."""
    return trouble.cause not in _ADVICE and not _is_flood(trouble)


def _is_flood(trouble: Trouble) -> bool:
    return trouble.text.startswith("nearly everything")


def _commands(trouble: Trouble) -> str:
    chosen = shlex.join(
        f"--{name}={value}"
        for name, value in (
            ("domain", trouble.domain),
            ("stage", trouble.stage),
            ("cause", trouble.cause),
        )
        if value
    )
    return _LETTERS_COMMANDS.format(chosen=chosen, letter=next(iter(trouble.captured_ids), "ID"))


def reasons(troubles: Sequence[Trouble], interval_minutes: int) -> str:
    """Return why somebody gets this, and how to stop it."""
    mute = "\n".join(
        f"  casewire alerts mute {shlex.quote(each.group)} --for 2h" for each in troubles[:_SHOWN]
    )
    often = "a minute" if interval_minutes == 1 else f"{interval_minutes} minutes"
    return (
        "Why am I getting this? Your address is in [alerts] of Casewire's configuration, and gets\n"
        f"what people must act on: at most one message in {often} about one trouble, less often\n"
        "while it lasts, and one when it is over.\n\n"
        f"How do I stop it? For two hours, where Casewire runs:\n{mute}\n"
        "For good: have your address taken out of [alerts] in casewire.toml.\n"
    )


def _summary(troubles: Sequence[Trouble]) -> str:
    counts = {
        word: sum(each.told == told for each in troubles)
        for word, told in (("new", "opened"), ("still", "updated"), ("recovered", "recovered"))
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _span(first: str, last: str) -> str:
    return first if first == last else f"first {first}, last {last}"


def _minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"
