"""Form events, states and stubs: as HQ's own JSON gives them (contract §4, protocol §6.2)."""

from collections.abc import Mapping, Sequence

from schemas.values import Json, Value


class FormEvent(Value, frozen=True, kw_only=True):
    """A form as it was forwarded, also when it came as XML.

    What was not sent is None. `form` holds the answers as sent: `#type` is the root's tag,
    attributes are `@name`, text beside attributes `#text`; what may repeat is one list or one
    object, as it was sent. Times of the envelope, of `metadata` and of case blocks
    (`@date_modified`) are canonical, with the sent text beside one that was sent otherwise
    (`<key>_sent`). `extra` holds the keys that are not named here, and what a field of another
    type than HQ documents could not hold, as `<key>_sent` too.
    """

    id: str
    domain: str
    form: Mapping[str, Json]
    metadata: Mapping[str, Json] | None
    type: str | None = None
    version: str | None = None
    uiversion: str | None = None
    received_on: str | None = None
    server_modified_on: str | None = None
    edited_on: str | None = None
    edited_by_user_id: str | None = None
    indexed_on: str | None = None
    app_id: str | None = None
    build_id: str | None = None
    submit_ip: str | None = None
    initial_processing_complete: bool | None = None
    problem: str | None = None
    archived: bool | None = None
    attachments: Mapping[str, Json] | None = None
    is_phone_submission: bool | None = None
    resource_uri: str | None = None

    @property
    def xmlns(self) -> str:
        """The form's XML namespace, empty if it has none."""
        xmlns = self.form.get("@xmlns")
        return xmlns if isinstance(xmlns, str) else ""


class FormState(FormEvent, frozen=True, kw_only=True):
    """The latest version of a form.

    `version` is HQ's (the app's); the one that sinks guard by is `state_version`.
    """

    state_version: int
    captured_id: str


class FormStub(Value, frozen=True, kw_only=True):
    """That a form was received, and the cases that it touched."""

    domain: str
    form_id: str
    received_on: str | None
    case_ids: Sequence[str]
