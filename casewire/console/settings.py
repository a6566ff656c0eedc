"""`[console]` of casewire.toml."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from schemas.settings import Table


class ConsoleSettings(Table, frozen=True, kw_only=True):
    """Who may use the console, and for how long at a time.

    `users_file` is written by `casewire console password`. Without it, and without a proxy that
    says who is there, whoever can read `console.token` in the data directory may log in.

    `trusted_user_header` is the header by which a proxy that has logged people in (by OIDC, say)
    names them; it is believed from `trusted_proxies` alone (addresses or networks), whose
    `X-Forwarded-For` and `X-Forwarded-Proto` are believed too.

    `operators`: who may see values and act; everybody else who may log in may look. Empty:
    everybody may.

    `session_key_file` signs sessions; all consoles behind one address need the same. Empty:
    `console.key` in the data directory. `ingress_url` is how CommCare HQ reaches the ingress, for
    the connection guide.
    """

    users_file: str = ""
    trusted_user_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""
    trusted_proxies: Sequence[str] = ()
    operators: Sequence[str] = ()
    session_hours: Annotated[int, msgspec.Meta(ge=1, le=168)] = 12
    session_key_file: str = ""
    ingress_url: Annotated[str, msgspec.Meta(pattern=r"^(https://[^/?#\s]+)?$")] = ""

    @property
    def knows_users(self) -> bool:
        """Whether it is said who may log in."""
        return bool(self.users_file or self.trusted_user_header)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong between keys that are each right: `key: what; remedy`."""
        if self.trusted_user_header and not self.trusted_proxies:
            yield (
                "trusted_user_header: anybody could send it; name the proxy that does in "
                "trusted_proxies"
            )
        if self.operators and not self.knows_users:
            yield (
                "operators: nobody has a name yet; say who may log in by users_file or "
                "trusted_user_header"
            )

    def may_act(self, user: str) -> bool:
        """Whether a user who is known may see values and act."""
        return not self.operators or user in self.operators
