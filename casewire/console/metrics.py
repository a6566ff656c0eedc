"""What the console counts."""

from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import Counter

Action: TypeAlias = Literal[
    "reveal a case",
    "reveal a form",
    "reveal a dead letter",
    "replay dead letters",
    "discard dead letters",
    "replay",
    "mute",
    "unmute",
]
Outcome: TypeAlias = Literal["right", "wrong", "too many"]
Status: TypeAlias = Literal["2xx", "3xx", "4xx", "5xx"]

REQUESTS: Final = Counter(
    "casewire_console_requests_total", "Requests to the console, by class of status", ["status"]
)
ACTIONS: Final = Counter(
    "casewire_console_actions_total", "What people did or had shown to them", ["action"]
)
LOGINS: Final = Counter(
    "casewire_console_logins_total", "Logins to the console, by how they ended", ["outcome"]
)

for _counter, _values in ((REQUESTS, Status), (ACTIONS, Action), (LOGINS, Outcome)):
    for _value in get_args(_values):
        _counter.labels(_value)
