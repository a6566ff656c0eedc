"""Case events and case states: the case as HQ's own JSON gives it (contract §4, protocol §6.4)."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from schemas.values import Json, Value


class Index(TypedDict):
    """A case's relation to another. `relationship` is `child` or `extension`."""

    case_type: str
    case_id: str
    relationship: str


class CaseEvent(Value, frozen=True, kw_only=True):
    """A snapshot of a case as it was forwarded.

    What the sent format cannot say is None (`attachments` and `xform_ids` of XML, in V1 also
    `indices`), never empty. Times are canonical (`schemas.times`). `properties` are as sent, with
    HQ's `case_name`, `case_type`, `owner_id`, `external_id` and `date_opened` among them.
    `extra` holds the keys that are not named here, as they came, and beside a field that could not
    hold what was sent, that value (`<key>_sent`).
    """

    domain: str
    case_id: str
    user_id: str | None
    closed: bool
    xform_ids: Sequence[str] | None
    date_closed: str | None
    date_modified: str | None
    server_date_modified: str | None
    properties: Mapping[str, Json]
    indices: Mapping[str, Index] | None
    attachments: Mapping[str, Json] | None

    @property
    def case_type(self) -> str:
        """The case's type, empty if it has none."""
        case_type = self.properties.get("case_type")
        return case_type if isinstance(case_type, str) else ""

    @property
    def gone(self) -> bool:
        """Whether HQ says by this snapshot that the case is no more (protocol §6.6)."""
        return self.xform_ids is not None and not self.xform_ids


class CaseState(CaseEvent, frozen=True, kw_only=True):
    """The latest state of a case.

    `version` only grows for a case; whoever keeps a copy guards by it alone (contract §5).
    `captured_id` is the captured event that the state came from. `deleted`: the case is gone.
    `doubtful`: the order of two snapshots could not be told from what HQ sends.
    """

    source: Literal["snapshot", "forms"]
    version: int
    captured_id: str
    deleted: bool
    doubtful: bool
