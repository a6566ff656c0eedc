"""The connection guide says what the commands and the documentation say."""

import re
from html import unescape
from pathlib import Path

import pytest

from casewire.auth import NewSecret, instructions
from casewire.config import load_config
from casewire.connecting import FORWARDERS, IN_HQ
from casewire.init import write_starter
from ingress.auth import Credential
from tests.console.rig import asking, configured
from tests.servers import free_port

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def enter(text: str) -> set[tuple[str, str]]:
    """Return the fields, and what to enter, as a command prints them: two spaces before each."""
    found = set()
    for line in text.splitlines():
        match = re.fullmatch(r"  (\S.*?)  +(\S.*?)(?:   \(shown this once\))?", line)
        if match:
            found.add((match[1], match[2]))
    return found


async def test_the_page_has_what_the_starter_prints(tmp_path: Path) -> None:
    printed = enter(write_starter(tmp_path, "my-project", "s3cret"))
    users = configured(tmp_path)
    env = {
        "CASEWIRE_DATA_DIR": str(users.data_dir),
        "CASEWIRE_CONSOLE__USERS_FILE": users.console.users_file,
        "CASEWIRE_CONSOLE__INGRESS_URL": "https://commcare.example.org",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }
    config = load_config(tmp_path / "casewire.toml", env)
    async with asking(config) as asker:
        await asker.log_in()
        _, text = await asker.get("/connect")
    assert "s3cret" not in text
    assert "https://commcare.example.org/api/v1/in/my-project" in text
    shown = unescape(re.sub(r"<[^>]+>", "|", text)).lower()
    labels = {label for label, _ in printed}
    assert {"URL", "Authentication Type", "Username", "Password", "Forward Cases"} <= labels
    for label, value in printed - {("Name", "Casewire"), ("Password", "s3cret")}:
        assert f"|{label.lower()}|" in shown
        known = value.replace("https://YOUR-HOST", "https://commcare.example.org").lower()
        assert f"|{known}|" in shown


def test_each_kind_is_told_in_hqs_words_of_the_documentation() -> None:
    page = (ROOT / "docs" / "connect.md").read_text(encoding="utf-8")
    for kind, (name, user, secret) in IN_HQ.items():
        row = next(line for line in page.splitlines() if f"| `{kind}` |" in line)
        assert name in row
        assert user in row
        assert secret in row
        credential = Credential(name="x", domains=["a"], kind=kind, username="hq", secret="s")
        told = enter(instructions(credential, NewSecret("text", "stored", shown=False)))
        assert ("Authentication Type", name) in told
        assert (secret, "the one in your file") in told
    for line in FORWARDERS[:2]:
        assert f"*{line.label}*" in page
