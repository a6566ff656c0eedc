"""The pages: their links lead somewhere, and what they say of commands and sources is so."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import pytest

from casewire.cli import casewire

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("docs", "docker", "examples", "benchmarks")
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
)
CODE: Final = ("benchmarks", "casewire", "ingress", "kafka_clients", "schemas", "sinks", "streams")
CITED: Final = re.compile(r"\b(contract|protocol|measured|measured-sinks)(?:\.md)?\s+(?:#: )?(§\d)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return what headings are linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_the_pages_name_are_there(page: Path) -> None:
    for path in re.findall(r"`([\w.-]+/[\w./-]*\w)`", page.read_text(encoding="utf-8")):
        if path.partition("/")[0] in (*FOLDERS, *CODE, "tests"):
            assert (ROOT / path).exists(), path


def test_every_page_is_found_from_the_readme() -> None:
    results = {*(ROOT / "benchmarks" / "results").iterdir()}
    found = {ROOT / "README.md"}
    left = list(found)
    while left:
        page = left.pop()
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file not in found:
                found.add(file)
                left.append(file)
    assert [name(page) for page in PAGES if page not in found | results] == []


def spoken(text: str) -> Iterator[tuple[click.Command, str]]:
    """Yield each command that a page names, and what stands behind it on the line."""
    context = click.Context(casewire)
    for first, rest in re.findall(
        r"(?:^|[`$ /])casewire ([a-z][a-z-]*)([^`\n]*)", text, re.MULTILINE
    ):
        command = casewire.get_command(context, first)
        if command is None:
            continue  # a sentence
        for word in rest.split():
            if not isinstance(command, click.Group) or word not in command.commands:
                break
            command = command.commands[word]
        yield command, rest.partition("#")[0].partition(";")[0]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_the_options_that_the_pages_give_them(page: Path) -> None:
    for command, rest in spoken(page.read_text(encoding="utf-8")):
        known = {"--help", *(name for each in command.params for name in each.opts)}
        assert set(re.findall(r"(?<!\S)(--[a-z-]+)", rest)) <= known, rest


def test_every_command_is_named_in_the_pages() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    context = click.Context(casewire)
    for command in casewire.list_commands(context):
        assert f"casewire {command}" in text, command


def test_what_the_code_cites_is_explained() -> None:
    page = ROOT / "docs" / "sources.md"
    code = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    cited = {each for file in [*PAGES, *code] if file != page for each in citations(file)}
    assert len(cited) > 10
    assert cited <= set(citations(page))


def citations(file: Path) -> Sequence[tuple[str, str]]:
    """Return the papers and sections that a file cites."""
    found: list[tuple[str, str]] = CITED.findall(file.read_text(encoding="utf-8"))
    return found
