"""Scalars as text."""

import datetime as dt
import math

import pytest

from kflow.aws import texts
from kflow.aws.errors import SerializationFailed
from kflow.aws.models import load
from kflow.aws.shapes import Scalar

MODEL = load("kinesis")


def shape(kind, **traits):
    return Scalar(MODEL, "Some", {"type": kind, **traits})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", " as it is ", " as it is "),
        ("integer", " 17 ", 17),
        ("integer", "-5", -5),
        ("integer", "99999999999", 2**31 - 1),
        ("byte", "-1000", -128),
        ("biginteger", "340282366920938463463374607431768211455", (1 << 128) - 1),
        ("boolean", "TRUE", True),
        ("boolean", "0", False),
        ("double", "1.5e3", 1500.0),
        ("float", "-Infinity", -math.inf),
        ("blob", "AP8=", b"\0\xff"),
        ("timestamp", "2016-04-04T19:58:46.480Z", 1459799926480),
        ("timestamp", "2016-04-04T21:58:46+02:00", 1459799926000),
        ("timestamp", "2016-04-04", 1459728000000),
        ("timestamp", "1459799926.48", 1459799926480),
        ("timestamp", "Mon, 04 Apr 2016 19:58:46 GMT", 1459799926000),
        ("timestamp", "1.4e9", 1400000000000),
    ],
)
def test_texts_are_read(kind, text, value):
    assert texts.read(shape(kind), text) == value


def test_a_double_may_be_no_number():
    assert math.isnan(texts.read(shape("double"), "NaN"))
    assert texts.write(shape("double"), math.nan) == "NaN"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", ""),
        ("integer", "1_0"),
        ("integer", "1.5"),
        ("integer", "9" * 5000),
        ("boolean", "perhaps"),
        ("double", "inf"),
        ("double", "1_0"),
        ("blob", "A"),
        ("blob", "ü"),
        ("timestamp", ""),
        ("timestamp", "yesterday"),
        ("timestamp", "2016-13-04"),
        ("timestamp", "1e999"),
        ("timestamp", "99999999999999999999999"),
    ],
)
def test_texts_that_stand_for_nothing_are_refused(kind, text):
    with pytest.raises(SerializationFailed, match="can not be converted to a"):
        texts.read(shape(kind), text)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("iso8601", "2016-04-04T19:58:46.480Z"),
        ("unixTimestamp", "1459799926.480"),
        ("rfc822", "Mon, 04 Apr 2016 19:58:46 GMT"),
    ],
)
def test_timestamps_are_written_in_the_form_that_the_model_names(form, text):
    named = shape("timestamp", timestampFormat=form)

    assert texts.write(named, 1459799926480) == text
    assert texts.write(shape("timestamp"), 1459799926480, form) == text
    assert texts.write(named, dt.datetime(2016, 4, 4, 19, 58, 46, 480_000, tzinfo=dt.UTC)) == text


def test_whole_seconds_have_no_fraction():
    assert texts.write(shape("timestamp"), -1000) == "1969-12-31T23:59:59Z"
    assert texts.write(shape("timestamp", timestampFormat="unixTimestamp"), 1000) == "1"


def test_others_are_written_as_xml_has_them():
    assert texts.write(shape("boolean"), True) == "true"
    assert texts.write(shape("blob"), b"\0\xff") == "AP8="
    assert texts.write(shape("float"), 3) == "3.0"
    assert texts.write(shape("long"), 1 << 60) == "1152921504606846976"
