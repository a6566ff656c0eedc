"""A console in this process, on a port of its own, and who asks it."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp

from casewire.addresses import Address
from casewire.config import Config, load_config
from casewire.console.app import create_app
from casewire.console.backend import Backend
from casewire.console.command import make_backend
from casewire.health import serving
from ingress.secrets_store import scrypt_text
from tests.servers import free_port

PASSWORD = "correct horse battery"


@cache
def stored() -> str:
    """Return what is stored of the password, made once: it takes its time."""
    return scrypt_text(PASSWORD)


def configured(folder: Path, **more: str) -> Config:
    """Return a configuration with the user `anna`; `more` are keys of [console]."""
    (folder / "users").write_text(f"anna:{stored()}\n", encoding="utf-8")
    (folder / "var").mkdir(exist_ok=True)
    env = {
        "CASEWIRE_DATA_DIR": str(folder / "var"),
        "CASEWIRE_CONSOLE__USERS_FILE": str(folder / "users"),
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    env |= {f"CASEWIRE_CONSOLE__{key.upper()}": text for key, text in more.items()}
    return load_config(None, {name: text for name, text in env.items() if text})


@dataclass(slots=True)
class Asker:
    """Asks as a browser does, but follows nothing."""

    client: aiohttp.ClientSession
    base: str
    backend: Backend

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[aiohttp.ClientResponse, str]:
        async with self.client.get(
            self.base + path, headers=headers, allow_redirects=False
        ) as answer:
            return answer, await answer.text()

    async def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[aiohttp.ClientResponse, str]:
        async with self.client.post(
            self.base + path, data=form, headers=headers, allow_redirects=False
        ) as answer:
            return answer, await answer.text()

    async def token(self, path: str = "/login", headers: Mapping[str, str] | None = None) -> str:
        """Return what the forms of a page carry."""
        _, text = await self.get(path, headers)
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', text)
        assert found, text
        return found[1]

    async def log_in(
        self, user: str = "anna", password: str = PASSWORD, **more: str
    ) -> aiohttp.ClientResponse:
        csrf = await self.token()
        form = {"csrf": csrf, "user": user, "password": password, **more}
        answer, _ = await self.post("/login", form)
        return answer


@contextlib.asynccontextmanager
async def asking(config: Config) -> AsyncIterator[Asker]:
    backend = make_backend(config)
    port = free_port()
    jar = aiohttp.CookieJar(unsafe=True)  # an address is no host name
    listener = Address("127.0.0.1", port).listening()
    async with (
        serving(create_app(backend), listener),
        aiohttp.ClientSession(cookie_jar=jar) as client,
    ):
        yield Asker(client, f"http://127.0.0.1:{port}", backend)
