"""All roles with the console, and a real Chromium that looks at it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
import orjson
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from schemas.settings import KafkaSettings
from schemas.times import now
from tests.console.rig import PASSWORD, stored
from tests.end_to_end.system import System, create
from tests.end_to_end.test_samples import case, post
from tests.schemas.captures import JSON
from tests.servers import KafkaServer

#: As root, Chromium has no sandbox to give.
_ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage")
_CHROMIUM: Final = "/usr/bin/chromium"
_AXE: Final = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_TIMEOUT_MS: Final = 30_000

expect.set_options(timeout=_TIMEOUT_MS)


@pytest.fixture(scope="package")
async def system(
    kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """Every role but those of sinks that nobody looks at. A test has a domain of its own in it."""
    folder = tmp_path_factory.mktemp("console")
    users = folder / "users"
    users.write_text(f"anna:{stored()}\nben:{stored()}\n", encoding="utf-8")
    console = {"USERS_FILE": str(users), "OPERATORS": "anna"}
    system = System(
        folder,
        KafkaSettings(
            bootstrap_servers=kafka.bootstrap_servers, topic_prefix="console.", partitions=2
        ),
        {"files": {"type": "sql"}},
        role_env={"console": {f"CASEWIRE_CONSOLE__{key}": value for key, value in console.items()}},
    )
    await create(system)
    roles = (*system.roles, "alerts run", "console")
    for role in roles:
        system.start(role)
    try:
        await system.ready(roles)
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="package")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_ARGUMENTS])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(slots=True)
class Looker:
    """A person at a browser. `complaints` are what the browser says against the pages."""

    system: System
    page: Page
    complaints: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.system.console_port}"

    async def open(self, path: str) -> None:
        await self.page.goto(self.base + path)

    async def log_in(self, user: str = "anna") -> None:
        await self.open("/login")
        await self.page.get_by_label("User name").fill(user)
        await self.page.get_by_label("Password").fill(PASSWORD)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url(self.base + "/")

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def violations(self) -> list[Any]:
        """Return what axe-core has against the page, with where."""
        await self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found: list[Any] = await self.page.evaluate(
            "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.target.join())]))"
        )
        return found

    def forgive(self, text: str) -> None:
        """Take back the complaints that say this: a test has asked for it."""
        self.complaints[:] = [each for each in self.complaints if text not in each]

    def audited(self) -> list[Mapping[str, str]]:
        """Return what the console has written down, without the logins."""
        file = self.system.folder / "data" / "console-audit.jsonl"
        lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
        return [line for line in lines if not line["action"].startswith("log ")]


@pytest.fixture
async def looking(
    system: System, chromium: Browser, request: pytest.FixtureRequest
) -> AsyncIterator[Looker]:
    """Somebody who has logged in; the parameter may be options of the browser's context."""
    options = getattr(request, "param", {})
    context = await chromium.new_context(**options)
    context.set_default_timeout(_TIMEOUT_MS)
    looker = Looker(system, await context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            looker.complaints.append(message.text)

    looker.page.on("console", hear)
    looker.page.on("pageerror", lambda error: looker.complaints.append(str(error)))
    await looker.log_in()
    yield looker
    await context.close()
    assert looker.complaints == []


async def forward(system: System, domain: str, body: bytes) -> str:
    """Forward a body as HQ does; return the event's id once it is in every sink."""
    headers = [("server-modified-on", now()), ("content-type", JSON)]
    status, receipt = await post(system.address(domain), body, headers)
    assert status == 200
    await system.caught_up()
    return str(receipt["id"])


async def forward_case(system: System, domain: str, case_id: str, **properties: str) -> None:
    held = {"case_type": "patient", "case_name": "Synthetic One", **properties}
    await forward(system, domain, case(case_id, domain=domain, properties=held))
