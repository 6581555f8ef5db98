"""Inputs of every operation of Kinesis, right and wrong: the quick way and the exact one agree; and outputs."""

import base64
import datetime as dt
import functools
import json
import re

import botocore.session
import cbor2
import msgspec
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from kflow.aws import cbor
from kflow.aws.cbor_output import CborOutput
from kflow.aws.coerce import Coercion
from kflow.aws.columns import Columns
from kflow.aws.dict_input import DictInput
from kflow.aws.errors import SerializationFailed
from kflow.aws.json_input import JsonInput, plain
from kflow.aws.json_output import JsonOutput
from kflow.aws.local import Lenient
from kflow.aws.shapes import ListOf, MapOf, Structure
from kflow.aws.structs import Milliseconds
from kflow.errors import ValidationFailed
from tests.unit.aws.fakes import model, operation

NAMES = model().operation_names
READERS = {
    name: (
        JsonInput(operation(name)),
        DictInput(operation(name), Coercion(is_text=False)),
        DictInput(operation(name), Lenient()),
    )
    for name in NAMES
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.text(),
    st.sampled_from(["", "yes", "1", "QQ==", "QR==", "QUI=", "QUJD", "=", "a b", "x" * 300, "0", "01"]),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@functools.cache
def right(shape, depth=0):
    """Values that fit a shape: bytes for blobs, `Milliseconds` for timestamps."""
    if isinstance(shape, Structure):
        if shape.is_event_stream or shape.is_document:
            return st.just({})
        required = {
            name: right(member.shape, depth + 1) for name, member in shape.members.items() if member.is_required
        }
        optional = {
            name: right(member.shape, depth + 1)
            for name, member in shape.members.items()
            if not member.is_required and depth < 6
        }
        return st.fixed_dictionaries(required, optional=optional)
    least = shape.minimum or 0
    if isinstance(shape, ListOf):
        greatest = min(shape.maximum or 3, least + 2)
        return st.lists(right(shape.element.shape, depth + 1), min_size=least, max_size=greatest)
    if isinstance(shape, MapOf):
        keys, inner = right(shape.key.shape, depth + 1), right(shape.value.shape, depth + 1)
        return st.dictionaries(keys, inner, min_size=least, max_size=least + 2)
    match shape.kind:
        case "blob":
            return st.binary(min_size=least, max_size=40)
        case "timestamp":
            return st.integers(0, 4 * 10**12).map(Milliseconds)
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(least, shape.maximum or 2**31 - 1)
        case "long":
            return st.integers(least, 2**63 - 1)
        case "double" | "float":
            return st.floats(allow_nan=False, allow_infinity=False)
    if shape.enum:
        return st.sampled_from(shape.enum)
    if shape.pattern is not None:
        greatest = shape.maximum or 10**9
        strings = st.from_regex(re.compile(shape.pattern, re.ASCII), fullmatch=True)
        return strings.filter(
            lambda text: least <= len(text) <= greatest and not set("\n\r\x85\u2028\u2029") & set(text)
        )
    return st.text(
        st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(shape.maximum or 30, least + 9)
    )


@functools.cache
def mixed(shape):
    """JSON that fits a shape here and there."""
    if isinstance(shape, Structure):
        members = {name: mixed(member.shape) for name, member in shape.members.items()}
        return st.fixed_dictionaries({}, optional=members) | ANYTHING
    if isinstance(shape, ListOf):
        return st.lists(mixed(shape.element.shape), max_size=3) | ANYTHING
    if isinstance(shape, MapOf):
        return st.dictionaries(st.text(max_size=3), mixed(shape.value.shape), max_size=3) | ANYTHING
    return right(shape).map(lambda value: as_json(shape, value)) | SCALARS


def as_json(shape, value):
    if isinstance(shape, Structure):
        return {name: as_json(shape.members[name].shape, part) for name, part in value.items()}
    if isinstance(shape, ListOf):
        return [as_json(shape.element.shape, part) for part in value]
    if isinstance(shape, MapOf):
        return {name: as_json(shape.value.shape, part) for name, part in value.items()}
    if shape.kind == "blob":
        return base64.b64encode(value).decode()
    return value / 1000 if shape.kind == "timestamp" else value


def inputs(kind):
    return st.sampled_from(NAMES).flatmap(
        lambda name: st.tuples(st.just(name), kind(operation(name).input) if operation(name).input else st.just({}))
    )


def outputs():
    names = [name for name in NAMES if operation(name).output and not operation(name).event_stream]
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), right(operation(name).output)))


def plainly(struct):
    return msgspec.to_builtins(struct, builtin_types=(bytes,))


@given(inputs(right))
def test_what_is_right_is_read_quickly_and_the_same_from_json_cbor_and_this_process(case):
    name, values = case
    from_json, from_cbor, from_here = READERS[name]
    shape = operation(name).input
    body = json.dumps(as_json(shape, values) if shape else {}).encode()
    wanted = plainly(from_json.exact(plain(body)))
    assert plainly(from_json.quick(body)) == wanted
    packed = cbor.encode(values)
    assert plainly(from_cbor.quick(cbor.decode(packed))) == wanted
    assert plainly(from_cbor.exact(cbor.decode(packed))) == wanted
    times = json.loads(json.dumps(values, default=lambda _: None)) if not shape else from_boto3(shape, values)
    assert plainly(from_here.quick(times)) == wanted
    assert plainly(from_here.exact(times)) == wanted


def from_boto3(shape, value):
    if isinstance(shape, Structure):
        return {name: from_boto3(shape.members[name].shape, part) for name, part in value.items()}
    if isinstance(shape, ListOf):
        return [from_boto3(shape.element.shape, part) for part in value]
    if isinstance(shape, MapOf):
        return {name: from_boto3(shape.value.shape, part) for name, part in value.items()}
    return value / 1000 if shape.kind == "timestamp" else value


@given(inputs(mixed))
def test_whatever_is_read_quickly_is_read_exactly_as_well_and_the_same(case):
    name, values = case
    reader = READERS[name][0]
    body = json.dumps(values).encode()
    quick = reader.quick(body)
    try:
        exact = reader.exact(plain(body))
    except (SerializationFailed, ValidationFailed):
        assert quick is None
    else:
        assert quick is None or plainly(quick) == plainly(exact)


@given(inputs(mixed))
def test_the_same_holds_for_cbor(case):
    name, values = case
    reader = READERS[name][1]
    content = cbor2.dumps(values)
    try:
        decoded = cbor.decode(content)
    except cbor.CborError:
        return
    if not isinstance(decoded, dict):
        return
    quick = reader.quick(decoded)
    try:
        exact = reader.exact(decoded)
    except (SerializationFailed, ValidationFailed):
        assert quick is None
    else:
        assert quick is None or plainly(quick) == plainly(exact)


@given(st.binary(max_size=60), st.integers(0, 3), st.booleans())
def test_base64_is_taken_exactly_where_aws_takes_it(data, cut, is_long):
    """Short blobs and long ones are decoded by different means."""
    text = base64.b64encode(data).decode()
    text = ("QUJD" * 500 if is_long else "") + text[: len(text) - cut] + "R=="[:cut]
    reader = READERS["PutRecord"][0]
    body = json.dumps({"Data": text, "PartitionKey": "k"}).encode()
    quick = reader.quick(body)
    try:
        exact = reader.exact(plain(body))
    except SerializationFailed:
        assert quick is None
    else:
        assert quick.Data == exact.Data


PARSER = create_parser("json")
SESSION = botocore.session.Session()


@given(outputs(), st.booleans())
def test_whatever_is_answered_is_read_back_by_botocore(case, by_column):
    name, values = case
    shape = operation(name).output
    written = JsonOutput().bytes_of(shape, columnar(shape, values) if by_column else values)
    theirs = SESSION.get_service_model("kinesis").operation_model(name).output_shape
    response = {"status_code": 200, "headers": {}, "body": written}
    parsed = PARSER.parse(response, theirs)
    parsed.pop("ResponseMetadata")
    assert parsed == with_datetimes(shape, values)


@given(outputs(), st.booleans())
def test_whatever_is_answered_in_cbor_is_read_back(case, by_column):
    name, values = case
    shape = operation(name).output
    assert cbor.decode(CborOutput().bytes_of(shape, columnar(shape, values) if by_column else values)) == values


def columnar(shape, values):
    """Lists of structures whose members are all scalars, by column."""
    found = dict(values)
    for name, value in values.items():
        inner = shape.members[name].shape
        if isinstance(inner, ListOf) and isinstance(row := inner.element.shape, Structure):
            kinds = {member.shape.kind for member in row.members.values()}
            if kinds <= {"string", "blob", "timestamp", "integer", "long"}:
                found[name] = Columns(len(value), {part: [each.get(part) for each in value] for part in row.members})
    return found


def with_datetimes(shape, value):
    if isinstance(shape, Structure):
        return {name: with_datetimes(shape.members[name].shape, part) for name, part in value.items()}
    if isinstance(shape, ListOf):
        return [with_datetimes(shape.element.shape, part) for part in value]
    if isinstance(shape, MapOf):
        return {name: with_datetimes(shape.value.shape, part) for name, part in value.items()}
    if shape.kind == "timestamp":
        return dt.datetime.fromtimestamp(value / 1000, dt.UTC)
    return value


@given(st.binary(min_size=1, max_size=4), st.booleans())
def test_bytes_that_are_no_text_are_refused_wherever_they_are(piece, is_known):
    """Where nobody knows a member, its bytes count too."""
    key = b"StreamName" if is_known else b"Other" + piece
    value = piece if is_known else b"x"
    body = b'{"RetentionPeriodHours":30,"' + key + b'":"' + value + b'"}'
    reader = READERS["IncreaseStreamRetentionPeriod"][0]
    quick = reader.quick(body)
    try:
        exact = reader.exact(plain(body))
    except (SerializationFailed, ValidationFailed):
        assert quick is None
    else:
        assert quick is None or plainly(quick) == plainly(exact)
