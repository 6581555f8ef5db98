"""XML along a model: outputs as elements, and elements as input values.

Namespaces are written where the model names them, and not looked at when reading, as in AWS's own SDKs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, Final

from kflow.aws import texts
from kflow.aws.columns import Columns, Constant
from kflow.aws.errors import SerializationFailed
from kflow.aws.shapes import ListOf, MapOf, Member, Shape, Structure

DECLARATION: Final = b'<?xml version="1.0" encoding="UTF-8"?>\n'

_ESCAPED = re.compile("[&<>\r]")
_ESCAPED_IN_ATTRIBUTES = re.compile('[&<>"\t\n\r]')
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold at all, not even by number."""
_MARKUP = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def escape(text: str) -> str:
    """As the text of an element. A carriage return would come out as a line feed; what is illegal becomes U+FFFD."""
    return _ESCAPED.sub(_reference, _ILLEGAL.sub("\ufffd", text))


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def element(name: str, content: Iterable[str], attributes: str = "") -> Iterator[str]:
    """An element around some content."""
    yield f"<{name}{attributes}>"
    yield from content
    yield f"</{name}>"


def namespace(traits: Mapping[str, Any]) -> str:
    """The declaration that traits ask for, as attributes."""
    found = traits.get("xmlNamespace")
    if not found:
        return ""
    if isinstance(found, str):
        return f' xmlns="{_attribute(found)}"'
    prefix = f":{found['prefix']}" if found.get("prefix") else ""
    return f' xmlns{prefix}="{_attribute(found["uri"])}"'


def members_of(shape: Structure, value: Mapping[str, Any]) -> Iterator[str]:
    """The members of a structure that travel in its body, each as an element or as several."""
    known = shape.members
    for name, part in value.items():
        member = known[name]
        if part is not None and not member.location and not member.trait("xmlAttribute"):
            yield from _member(member, part)


def attributes_of(shape: Structure, value: Mapping[str, Any]) -> str:
    """Those that are attributes of its element."""
    found = [
        f' {member.wire_name}="{_attribute(texts.write(member.shape, value[name]))}"'
        for name, member in shape.members.items()
        if member.trait("xmlAttribute") and value.get(name) is not None
    ]
    return "".join(found)


def structure(name: str, shape: Structure, value: Mapping[str, Any], attributes: str = "") -> Iterator[str]:
    """A structure as an element."""
    return element(name, members_of(shape, value), attributes + attributes_of(shape, value))


def _member(member: Member, value: Any) -> Iterator[str]:
    shape = member.shape
    if isinstance(shape, ListOf):
        rows = rows_of(value)
        if member.trait("flattened"):
            name = shape.element.location_name or member.wire_name
            for row in rows:
                yield from _value(name, shape.element, row)
        else:
            name = shape.element.location_name or "member"
            inside = (piece for row in rows for piece in _value(name, shape.element, row))
            yield from element(member.wire_name, inside, namespace_of(member))
    elif isinstance(shape, MapOf):
        if member.trait("flattened"):
            for key, part in value.items():
                yield from element(member.wire_name, _entry(shape, key, part))
        else:
            inside = (piece for key, part in value.items() for piece in element("entry", _entry(shape, key, part)))
            yield from element(member.wire_name, inside, namespace_of(member))
    else:
        yield from _value(member.wire_name, member, value)


def namespace_of(member: Member) -> str:
    """The declaration that this place asks for, or its shape does."""
    return namespace({"xmlNamespace": member.trait("xmlNamespace")})


def _value(name: str, member: Member, value: Any) -> Iterator[str]:
    """A value as one element; lists and maps in lists and maps are never flattened."""
    shape = member.shape
    if isinstance(shape, Structure):
        yield from structure(name, shape, value, namespace_of(member))
    elif isinstance(shape, ListOf):
        inner = shape.element.location_name or "member"
        yield from element(name, (piece for row in rows_of(value) for piece in _value(inner, shape.element, row)))
    elif isinstance(shape, MapOf):
        entries = (piece for key, part in value.items() for piece in element("entry", _entry(shape, key, part)))
        yield from element(name, entries)
    else:
        yield f"<{name}>{escape(texts.write(shape, value))}</{name}>"


def _entry(shape: MapOf, key: str, value: Any) -> Iterator[str]:
    yield from _value(shape.key.location_name or "key", shape.key, key)
    yield from _value(shape.value.location_name or "value", shape.value, value)


def rows_of(value: Any) -> Iterable[Any]:
    """The elements of a list, from columns too. None is no element."""
    if not isinstance(value, Columns):
        return [part for part in value if part is not None]
    names = tuple(value.members)
    columns = [repeat(part.value) if isinstance(part, Constant) else part for part in value.members.values()]
    return [dict(zip(names, row[1:], strict=True)) for row in zip(range(value.count), *columns, strict=False)]


def _attribute(text: str) -> str:
    return _ESCAPED_IN_ATTRIBUTES.sub(_reference, _ILLEGAL.sub("\ufffd", text))


def parse(body: bytes) -> Any:
    """The root element of a document.

    Raises:
        SerializationFailed: it is no XML, or declares entities.
    """
    from xml.etree import ElementTree as ET  # of bodies in XML, which come seldom

    if b"\0" in body or _MARKUP.search(body):  # in UTF-16, which no SDK sends, markup would have zeros in it
        raise SerializationFailed("the body must be XML in UTF-8, without a document type declaration")
    try:
        # Whatever the document says it is: so that the look for markup above has seen all there is.
        return ET.fromstring(body, ET.XMLParser(encoding="utf-8"))  # noqa: S314  # no entities: see above
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SerializationFailed(f"the body is no XML: {error}") from error


def read_structure(shape: Structure, node: Any) -> dict[str, Any]:
    """The members of a structure from its element; those with a location elsewhere are left out.

    Raises:
        SerializationFailed: a text stands for no value of its type.
    """
    children: dict[str, list[Any]] = {}
    for child in node:
        children.setdefault(_local(child.tag), []).append(child)
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        if member.location:
            continue
        if member.trait("xmlAttribute"):
            text = _attribute_of(node, member.wire_name)
            if text is not None:
                found[name] = texts.read(member.shape, text)
            continue
        nodes = children.get(member.wire_name)
        if nodes is None and isinstance(member.shape, ListOf) and member.trait("flattened"):
            nodes = children.get(member.shape.element.location_name)
        if nodes:
            found[name] = _read_member(member, nodes)
    return found


def _read_member(member: Member, nodes: list[Any]) -> Any:
    shape = member.shape
    if member.trait("flattened"):
        if isinstance(shape, ListOf):
            return [_read(shape.element.shape, node) for node in nodes]
        if isinstance(shape, MapOf):
            return dict(_read_entry(shape, node) for node in nodes)
    return _read(shape, nodes[0])


def _read(shape: Shape, node: Any) -> Any:
    if isinstance(shape, Structure):
        return read_structure(shape, node)
    if isinstance(shape, ListOf):
        return [_read(shape.element.shape, child) for child in node]
    if isinstance(shape, MapOf):
        return dict(_read_entry(shape, child) for child in node)
    return texts.read(shape, node.text or "")


def _read_entry(shape: MapOf, node: Any) -> tuple[str, Any]:
    children = {_local(child.tag): child for child in node}
    key = children.get(shape.key.location_name or "key")
    value = children.get(shape.value.location_name or "value")
    if key is None or value is None:
        raise SerializationFailed("an entry of a map has no key, or no value")
    return _read(shape.key.shape, key), _read(shape.value.shape, value)


def _attribute_of(node: Any, name: str) -> str | None:
    """An attribute, whatever its namespace is called."""
    wanted = name.rpartition(":")[2]
    for key, value in node.attrib.items():
        if _local(key) == wanted:
            return str(value)
    return None


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]
