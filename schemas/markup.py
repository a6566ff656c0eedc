"""XML as HQ reads it: parsed within limits, and turned into the JSON that HQ makes of it."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, cast

from lxml import etree

from schemas.errors import InvalidEventError
from schemas.values import Json

#: Levels of elements. In JSON a level can be two: an element of a list, and the list.
MAX_XML_DEPTH: Final = 100

_PARSER: Final = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)


def load_xml(body: bytes) -> etree._Element:
    """Parse XML. InvalidEventError `malformed_xml` if it is broken or has a document type.

    No client of CommCare writes a document type; attacks by entities need one.
    """
    try:
        root = etree.fromstring(body, _PARSER)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise InvalidEventError(
            "malformed_xml",
            f"the XML is broken in line {line}, column {column}",
        ) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise InvalidEventError("malformed_xml", "the XML has a document type, which is refused")
    return root


@lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str | None, str]:
    """Return an lxml tag's namespace (None without one) and local name."""
    if tag[0] != "{":
        return None, tag
    namespace, _, name = tag[1:].partition("}")
    return namespace, name


def attributes(element: etree._Element) -> Sequence[tuple[str, str]]:
    """Return names (`{namespace}name`, as HQ has them) and texts, which lxml types less sharply."""
    return cast("Sequence[tuple[str, str]]", element.items())


def to_json(element: etree._Element, parent_namespace: str | None = None) -> Json:
    """Return an element as HQ's JSON has it: a text, or an object with `@name` and `#text`.

    The rules are those of github.com/dimagi/xml2json, `lib.py`: a repeated element is a list,
    one without attributes and children its text; `@xmlns` stands where the namespace is not the
    parent's; text between children is dropped.
    """
    return _to_json(element, split_tag(element.tag)[0], parent_namespace, MAX_XML_DEPTH)


def _to_json(
    element: etree._Element, namespace: str | None, parent_namespace: str | None, levels: int
) -> Json:
    if not levels:
        raise InvalidEventError(
            "malformed_xml", f"the XML has more than {MAX_XML_DEPTH} levels of nesting"
        )
    value: dict[str, Json] = {f"@{name}": text for name, text in attributes(element)}
    if namespace is not None and namespace != parent_namespace:
        value["@xmlns"] = namespace
    for child in element:
        child_namespace, name = split_tag(child.tag)
        item = _to_json(child, child_namespace, namespace, levels - 1)
        if name not in value:
            value[name] = item
        elif isinstance(value[name], list):
            value[name].append(item)
        else:
            value[name] = [value[name], item]
    text = element.text or ""
    if not value:
        return text
    if text.strip():
        value["#text"] = text
    return value


def text_of(value: Json) -> Json:
    """Return the text of an element that also has attributes; any other value as it is."""
    if isinstance(value, dict) and all(name[0] in "@#" for name in value):
        return value.get("#text")
    return value
