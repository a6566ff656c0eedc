"""What is the same in the tables of cases and in those of forms, and where they differ (data)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["text", "time", "flag", "number", "json"]
State: TypeAlias = Literal["case", "form"]

Group: TypeAlias = tuple[State, str]
"""What has a table: a case type, or the xmlns of a form."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that tables have beside those of what was sent; the first ones are the key."""

    key: tuple[str, ...]
    own: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Family:
    """The tables of cases, or those of forms.

    `guard` is the table that holds the versions by (domain, `id`), with the name of that which has
    a table, `group`: a case type, an xmlns. `kept` names the columns that a state may be unable to
    tell.
    """

    state: State
    guard: str
    id: str
    group: str
    layout: Layout
    kept: tuple[str, ...] = ()

    @property
    def id_column(self) -> str:
        """The column of the id in the tables of this family."""
        return self.layout.key[1]

    def group_of(self, name: str) -> Group:
        return (self.state, name)

    @property
    def guard_layout(self) -> Layout:
        return Layout(
            ("domain", self.id),
            {
                "domain": "text",
                self.id: "text",
                self.group: "text",
                "version": "number",
                "deleted": "flag",
            },
        )


INDEX_COLUMNS: Final = ("cw_parent_id", "cw_parent_type", "cw_indices")

CASES: Final = Family(
    state="case",
    guard="cases",
    id="case_id",
    group="case_type",
    layout=Layout(
        ("cw_domain", "cw_case_id"),
        {
            "cw_domain": "text",
            "cw_case_id": "text",
            "cw_closed": "flag",
            "cw_date_closed": "time",
            "cw_date_modified": "time",
            "cw_server_date_modified": "time",
            "cw_user_id": "text",
            "cw_parent_id": "text",
            "cw_parent_type": "text",
            "cw_indices": "json",
            "cw_version": "number",
            "cw_deleted": "flag",
            "cw_doubtful": "flag",
            "cw_source": "text",
            "cw_overflow": "json",
        },
    ),
    # What V1 XML (indices) and all case XML (the time of closing) cannot say (protocol.md §6.3).
    kept=("cw_date_closed", *INDEX_COLUMNS),
)

FORMS: Final = Family(
    state="form",
    guard="forms",
    id="form_id",
    group="xmlns",
    layout=Layout(
        ("cw_domain", "cw_form_id"),
        {
            "cw_domain": "text",
            "cw_form_id": "text",
            "cw_xmlns": "text",
            "cw_name": "text",
            "cw_app_id": "text",
            "cw_app_version": "text",
            "cw_build_id": "text",
            "cw_received_on": "time",
            "cw_server_modified_on": "time",
            "cw_edited_on": "time",
            "cw_edited_by_user_id": "text",
            "cw_time_start": "time",
            "cw_time_end": "time",
            "cw_user_id": "text",
            "cw_username": "text",
            "cw_device_id": "text",
            "cw_location": "text",
            "cw_metadata": "json",
            "cw_attachments": "json",
            "cw_version": "number",
            "cw_deleted": "flag",
            "cw_overflow": "json",
        },
    ),
    # What XML cannot say (protocol.md §6.1).
    kept=(
        "cw_build_id",
        "cw_server_modified_on",
        "cw_edited_on",
        "cw_edited_by_user_id",
        "cw_attachments",
    ),
)

FAMILIES: Final[Mapping[State, Family]] = {"case": CASES, "form": FORMS}

#: Of the tables of a form's repeats. `cw_path` tells a row among all of its form.
REPEAT_LAYOUT: Final = Layout(
    ("cw_domain", "cw_form_id", "cw_path"),
    {
        "cw_domain": "text",
        "cw_form_id": "text",
        "cw_path": "text",
        "cw_ordinal": "number",
        "cw_parent_path": "text",
        "cw_overflow": "json",
    },
)
