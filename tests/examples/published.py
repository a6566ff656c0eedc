"""Writes schemas/asyncapi.yaml and the made parts of docs/topics.md: `make schemas`.

A made part of the doc stands between `<!-- made: NAME -->` and `<!-- end -->`. NAME is that of a
table below, `record MESSAGE NUMBER` for a sample's key and value, `headers MESSAGE NUMBER` for its
headers, or `code PATH` for what stands in a file between the comments `recipe` and `end`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson
import yaml

from schemas.asyncapi import (
    HEADERS,
    MESSAGES,
    Header,
    Sample,
    document,
    header_example,
    reserved,
)
from schemas.publish import file_name
from schemas.topics import DEFAULT_PREFIX, TOPICS
from tests.examples.samples import samples

ROOT: Final = Path(__file__).parents[2]
ASYNCAPI: Final = ROOT / "schemas" / "asyncapi.yaml"
DOC: Final = ROOT / "docs" / "topics.md"

_NOTE: Final = "# Written by `make schemas`; docs/topics.md is the text that goes with it.\n"
_MADE: Final = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_RECIPE: Final = re.compile(r"# recipe\n(.*?)\n+# end\n", re.DOTALL)


def asyncapi_yaml(made: Sequence[Sample]) -> str:
    text: str = yaml.safe_dump(document(made), sort_keys=False, allow_unicode=True, width=110)
    return _NOTE + text


def filled(doc: str, made: Sequence[Sample]) -> str:
    """Return the doc with its made parts as they should be. An unknown name is a KeyError."""

    def part(match: re.Match[str]) -> str:
        kind, *rest = match[2].split()
        return match[1] + _PARTS[kind](made, *rest) + match[3]

    return _MADE.sub(part, doc)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _topics(made: Sequence[Sample]) -> str:
    rows = []
    for topic in TOPICS.values():
        messages = [message for message in MESSAGES.values() if message.topic == topic.name]
        if messages:
            schemas = dict.fromkeys(message.schema for message in messages)
            rows.append(
                [
                    f"`{DEFAULT_PREFIX}{topic.name}`",
                    topic.key,
                    ", ".join(_schema_link(schema) for schema in schemas),
                    "the latest of each key" if topic.compacted else f"{topic.retention_days} days",
                    " ".join(message.says for message in messages),
                ]
            )
    return _table(["topic", "key", "value", "kept", "what it is"], rows)


def _schema_link(schema: str) -> str:
    if not schema:
        return "bytes"
    return f"[`{schema}`](../schemas/published/{file_name(schema)})"


def _reserved(made: Sequence[Sample]) -> str:
    return ", ".join(f"`{DEFAULT_PREFIX}{name}`" for name in reserved()) + ".\n"


def _header_table(made: Sequence[Sample]) -> str:
    rows = [
        [f"`{header.name}`", _where(header), header.says, f"`{header_example(header.name, made)}`"]
        for header in HEADERS
    ]
    return _table(["header", "on", "what it says", "example"], rows)


def _where(header: Header) -> str:
    always, sometimes = ", ".join(header.always), ", ".join(header.sometimes)
    return "; ".join(
        part for part in (always, sometimes and f"if there is one: {sometimes}") if part
    )


def _sample(made: Sequence[Sample], message: str, number: str) -> Sample:
    return [sample for sample in made if sample.message == message][int(number) - 1]


def _record(made: Sequence[Sample], message: str, number: str) -> str:
    sample = _sample(made, message, number)
    key = f"key    {sample.key.decode()}\n"
    payload = sample.payload()
    if payload is None or isinstance(payload, str):
        return f"```\n{key}value  {payload if payload is not None else '(null)'}\n```\n"
    text = orjson.dumps(payload, option=orjson.OPT_INDENT_2).decode()
    return f"```\n{key}```\n\n```json\n{text}\n```\n"


def _headers(made: Sequence[Sample], message: str, number: str) -> str:
    sample = _sample(made, message, number)
    lines = "".join(f"{name}: {text.decode()}\n" for name, text in sample.headers)
    return f"```\n{lines}```\n"


def _code(made: Sequence[Sample], path: str) -> str:
    recipe = _RECIPE.search((ROOT / path).read_text(encoding="utf-8"))
    if recipe is None:
        raise KeyError(f"{path} has no recipe")
    return f"```python\n{recipe[1]}\n```\n"


_PARTS: Final[Mapping[str, Callable[..., str]]] = {
    "topics": _topics,
    "reserved": _reserved,
    "header-table": _header_table,
    "record": _record,
    "headers": _headers,
    "code": _code,
}


def main() -> None:
    made = samples()
    ASYNCAPI.write_text(asyncapi_yaml(made), encoding="utf-8")
    DOC.write_text(filled(DOC.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
