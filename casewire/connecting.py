"""What to enter in CommCare HQ so that a project space forwards: the one text of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ingress.auth import Credential, Kind

CONNECTION_PLACE: Final = "Project Settings > Connection Settings"
FORWARDING_PLACE: Final = "Project Settings > Data Forwarding"
#: Stands for the public https address of the ingress where nobody has told it.
YOUR_HOST: Final = "https://YOUR-HOST"


@dataclass(frozen=True, slots=True)
class Line:
    """A field of HQ's, and what to enter there."""

    label: str
    value: str


#: What HQ calls each kind, and its fields for the user name and the secret.
IN_HQ: Final[Mapping[Kind, tuple[str, str, str]]] = {
    "basic": ("HTTP Basic", "Username", "Password"),
    "digest": ("HTTP Digest", "Username", "Password"),
    "api-key": ("API Key", "", "API Key"),
    "bearer": ("Bearer Token", "Username", "Password"),
    "oauth2": ("OAuth 2.0 Client Credentials", "Client ID", "Client Secret"),
}
FORWARDERS: Final[Sequence[Line]] = (
    Line("Forward Cases", "payload format: JSON"),
    Line("Forward Forms", "payload format: JSON, \"Include 'app_id'\" ticked"),
    *(
        Line(f"Forward {what}", "if you want them; there is one format only")
        for what in ("Form Stubs", "App Schema Changes", "Users", "Locations")
    ),
)


def address(domain: str, host: str = YOUR_HOST) -> Line:
    """Return where a project space forwards to; `host` is the ingress's public address."""
    return Line("URL", f"{host}/api/v1/in/{domain}")


def login(credential: Credential, secret: str, host: str = YOUR_HOST) -> Sequence[Line]:
    """Return how HQ logs in; `secret` is what to say of the secret."""
    kind, user, password = IN_HQ[credential.kind]
    lines = [Line("Authentication Type", kind)]
    if user:
        lines.append(Line(user, credential.username))
    else:
        lines.append(Line("Header", credential.header.title()))
    lines.append(Line(password, secret))
    if credential.kind == "oauth2":
        lines.append(Line("Token URL", f"{host}/oauth/token"))
    return lines


def aligned_lines(lines: Sequence[Line]) -> str:
    """Return lines for a terminal, values below each other."""
    width = max(20, *(len(line.label) for line in lines))
    return "\n".join(f"  {line.label:<{width}} {line.value}" for line in lines)
