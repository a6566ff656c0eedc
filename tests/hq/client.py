"""CommCare HQ as a sender, built on `requests` as HQ is: the ingress' own clients are not trusted.

Sources: protocol.md §1.0 (requests on the wire), §3 (what an answer means, when HQ tries again),
§4 ("Test connection"). The rules are those of `casewire.hq`, which `casewire send` uses too.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import requests
from oauthlib.oauth2 import OAuth2Error

from casewire.hq import Failure, Generation, Request, Verdict, address, verdict, wait_before
from tests.hq.logins import TIMEOUTS, Anyone, Login

State: TypeAlias = Literal["Pending", "Failed", "Succeeded", "Cancelled", "Empty", "Rejected"]

#: Requests at once that a repeater makes (protocol.md §3.5).
WORKERS = 7
#: HQ's hours become tenths of a second.
QUICK = 0.1 / 3600

_ENDS: dict[Verdict, State] = {"success": "Succeeded", "empty": "Empty", "rejected": "Rejected"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """`status` is None if there was no answer; `text` is then the exception's."""

    status: int | None
    text: str
    failure: Failure = "answer"


@dataclass(slots=True)
class RepeatRecord:
    """A line of *Data Forwarding Records*. `due` is when it is sent next (monotonic seconds)."""

    payload: Request
    state: State = "Pending"
    attempts: list[Attempt] = field(default_factory=list)
    due: float = 0.0

    @property
    def receipt(self) -> str:
        """The text of the last answer."""
        return self.attempts[-1].text


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeater:
    """One forwarder of a project space and its Connection Settings.

    `scale` shortens HQ's waits; `verify` is False for "skip certificate verification".
    """

    url: str
    login: Login = field(default_factory=Anyone)
    generation: Generation = "B"
    scale: float = QUICK
    verify: bool = True

    def forward(self, payloads: Sequence[Request]) -> list[RepeatRecord]:
        """Send all payloads, again as HQ would, until none is Pending or Failed."""
        records = [RepeatRecord(payload) for payload in payloads]
        waiting = records
        with ThreadPoolExecutor(WORKERS) as workers:
            while waiting:
                first = min(record.due for record in waiting)
                time.sleep(max(0.0, first - time.monotonic()))
                now = time.monotonic()
                due = [record for record in waiting if record.due <= now]
                list(workers.map(self._attempt, due))
                waiting = [record for record in records if record.state in ("Pending", "Failed")]
        return records

    def test_connection(self) -> Attempt:
        """Do what the button does: a GET without a body."""
        return self._ask("GET", self.url, {"Accept": "application/json"}, None)

    def _attempt(self, record: RepeatRecord) -> None:
        attempt = self._send(record.payload)
        record.attempts.append(attempt)
        judged = "retry" if attempt.status is None else verdict(attempt.status, self.generation)
        if judged != "retry":
            record.state = _ENDS[judged]
            return
        wait = wait_before(len(record.attempts), attempt.failure)
        if wait is None:
            record.state = "Cancelled"
            return
        record.state = "Failed"
        record.due = time.monotonic() + wait * self.scale

    def _send(self, payload: Request) -> Attempt:
        headers = {"Content-Type": payload.content_type, **dict(payload.headers)}
        return self._ask(payload.method, address(self.url, payload), headers, payload.body)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> Attempt:
        try:
            with self.login.session() as session:
                answer = session.request(
                    method, url, data=body, headers=headers, verify=self.verify, timeout=TIMEOUTS
                )
                return Attempt(answer.status_code, answer.text)
        except (requests.ConnectionError, requests.Timeout) as error:
            return Attempt(None, str(error))
        except (requests.RequestException, OAuth2Error) as error:
            return Attempt(None, str(error), "exception")
