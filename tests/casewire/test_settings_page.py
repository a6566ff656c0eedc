"""docs/settings.md: every key with its default, and no other."""

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from casewire.alerts.settings import AlertSettings
from casewire.config import MachineSettings
from casewire.console.settings import ConsoleSettings
from casewire.tracing import TracingSettings
from ingress.settings import CredentialSettings, IngressSettings
from schemas.settings import KafkaSettings, Table
from streams.settings import StreamsSettings

PAGE: Final = Path(__file__).parents[2] / "docs" / "settings.md"
TABLES: Final[dict[str, type[Table]]] = {
    "Outside of all tables": MachineSettings,
    "`[kafka]`": KafkaSettings,
    "`[ingress]`": IngressSettings,
    "`[domains.NAME]`, `[credentials.NAME]`": CredentialSettings,
    "`[streams]`": StreamsSettings,
    "`[alerts]`": AlertSettings,
    "`[console]`": ConsoleSettings,
    "`[tracing]`": TracingSettings,
}


def documented(heading: str) -> dict[str, str]:
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \|", section, re.MULTILINE)
    return {key: default for keys, default in rows for key in re.findall(r"`(\w+)`", keys)}


def shown(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    default = field.default
    if default is msgspec.NODEFAULT:
        default = field.default_factory()
    return "none" if default is None else f"`{msgspec.json.encode(default).decode()}`"


@pytest.mark.parametrize("heading", TABLES)
def test_the_page_has_every_key_with_its_default(heading: str) -> None:
    fields = msgspec.structs.fields(TABLES[heading])
    assert documented(heading) == {field.name: shown(field) for field in fields}
