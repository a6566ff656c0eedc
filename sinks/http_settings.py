"""`[sinks.NAME]` with `type = "http"`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from schemas.settings import Positive
from sinks.settings import SinkTable

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.1
_HEADER_TEXT: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "x-api-key"})
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_LONGEST_WAIT: Final = 3600
_OAUTH: Final = ("user", "secret", "token_url")
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "basic": ("user", "secret"),
    "header": ("secret",),
    "oauth2": _OAUTH,
    "oauth2-body": _OAUTH,
}


class HttpSettings(SinkTable, frozen=True, kw_only=True, tag="http"):
    """A request for each case and form, as CommCare HQ would send it: OpenFn, or any address."""

    url: Annotated[
        str,
        Meta(
            description="The address.",
            examples=["https://app.openfn.org/i/1a2b3c4d-0000-0000-0000-000000000000"],
        ),
    ] = ""
    url_file: Annotated[
        str,
        Meta(
            description="A file that holds the address, if who knows it may post to it.",
            examples=["/etc/casewire/openfn-url"],
        ),
    ] = ""
    method: Annotated[
        Literal["POST", "PUT", "PATCH", "DELETE"],
        Meta(description="How it is sent, whatever became of the case.", examples=["POST"]),
    ] = "POST"
    headers: Annotated[
        Mapping[str, str],
        Meta(
            description="Headers to add to each request, no credentials.",
            examples=[{"x-project": "demo"}],
        ),
    ] = MappingProxyType({})
    add_app_id: Annotated[
        bool,
        Meta(
            description="Add `app_id` to the address of forms, as HQ does (\"Include 'app_id'\").",
            examples=[True],
        ),
    ] = True
    auth: Annotated[
        Literal["none", "basic", "header", "oauth2", "oauth2-body"],
        Meta(
            description="How to log in: `basic` with `user` and `secret`; `header` with `secret` "
            "as the value of `auth_header`; `oauth2` by client credentials, passed in the header "
            "or in the body.",
            examples=["oauth2"],
        ),
    ] = "none"
    user: Annotated[
        str, Meta(description="The user's name, or OAuth 2's client id.", examples=["casewire"])
    ] = ""
    secret: Annotated[
        str,
        Meta(
            description="The password, the API key, or the client's secret.",
            examples=["not-a-real-secret"],
        ),
    ] = ""
    secret_file: Annotated[
        str,
        Meta(
            description="A file that holds `secret`, which is where it should be.",
            examples=["/etc/casewire/openfn-secret"],
        ),
    ] = ""
    auth_header: Annotated[
        str, Meta(description="The header of an API key.", examples=["x-api-key"])
    ] = "x-api-key"
    token_url: Annotated[
        str,
        Meta(
            description="Where OAuth 2 gets its token.",
            examples=["https://login.example.org/oauth/token"],
        ),
    ] = ""
    scope: Annotated[
        str, Meta(description="The scope to ask OAuth 2 for.", examples=["inbox.write"])
    ] = ""
    concurrency: Annotated[
        Positive,
        Meta(
            description="Requests in flight at once, by each worker. Those of one case or form go "
            "one after the other.",
            examples=[8],
        ),
    ] = 8
    timeout_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=_LONGEST_WAIT)],
        Meta(description="How long an answer may take; then it is tried again.", examples=[60]),
    ] = 60

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from _address_problems("url", self.url)
        yield from self._login_problems()
        for name, text in self.headers.items():
            yield from _header_problems(name, text)

    def _login_problems(self) -> Iterator[str]:
        needed = _NEEDED[self.auth]
        for key in needed:
            if not getattr(self, key):
                yield f'{key}: missing; auth = "{self.auth}" needs it'
        if not needed and (self.user or self.secret):
            yield "auth: there are credentials, but it is none; write how to log in"
        if not _HEADER_TEXT.fullmatch(self.secret):
            yield "secret: holds characters that no header takes; check it"
        if not _HEADER_NAME.fullmatch(self.auth_header):
            yield "auth_header: is no name of a header; correct it"
        if self.token_url:
            yield from _address_problems("token_url", self.token_url)

    def place(self, data_dir: Path) -> str:
        return origin(self.url)


def origin(url: str) -> str:
    """Return who is asked, without the path: that of an OpenFn inbox is half a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _address_problems(key: str, url: str) -> Iterator[str]:
    if not url:
        yield f"{key}: missing; write the address, as https://HOST/PATH"
    elif not _is_address(url):
        yield f"{key}: is no address; write https://HOST/PATH"
    elif "@" in urlsplit(url).netloc:
        yield f'{key}: holds credentials; write them as auth = "basic", user and secret_file'


def _is_address(url: str) -> bool:
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return known and not parts.fragment and url.isprintable() and " " not in url


def _header_problems(name: str, text: str) -> Iterator[str]:
    if not _HEADER_NAME.fullmatch(name):
        yield f"headers.{name}: is no name of a header; correct it"
    elif name.lower() in _CREDENTIALS:
        yield f'headers.{name}: is a credential; write auth = "header" and secret_file'
    elif name.lower() in _FRAMING:
        yield f"headers.{name}: is the connection's own; remove it"
    if not _HEADER_TEXT.fullmatch(text):
        yield f"headers.{name}: holds characters that no header takes; correct it"
