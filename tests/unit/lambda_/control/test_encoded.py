"""A long zip in a request: cut out of the JSON around it, decoded elsewhere."""

from __future__ import annotations

import base64
import json
import os

import pytest

from kflow.lambda_.control import encoded
from kflow.lambda_.control.encoded import Encoded, cut
from kflow.lambda_.control.sources import source
from kflow.lambda_.errors import InvalidParameterValue, RequestTooLarge

CONTENT = os.urandom(300_001)
TEXT = base64.b64encode(CONTENT).decode()


def made(text: str) -> Encoded:
    found = Encoded()
    found.text = memoryview(text.encode())
    return found


def test_it_is_cut_out_wherever_it_stands_and_decoded_to_what_it_was():
    body = json.dumps({"FunctionName": "f", "Code": {"ZipFile": TEXT}, "Timeout": 3}).encode()
    rest, zipped = cut(body)
    assert json.loads(rest) == {"FunctionName": "f", "Code": {"ZipFile": ""}, "Timeout": 3}
    assert zipped.decoded() == CONTENT
    assert 0 <= zipped.size - len(CONTENT) <= 2


def test_short_ones_and_variables_of_the_name_are_left_alone():
    assert cut(json.dumps({"ZipFile": TEXT[:1000]}).encode()) is None
    body = {"Environment": {"Variables": {"ZipFile": "x"}}, "Description": '"ZipFile":"', "ZipFile": TEXT}
    rest, zipped = cut(json.dumps(body).encode())
    assert json.loads(rest) == {**body, "ZipFile": ""}
    assert zipped.decoded() == CONTENT


def test_a_text_without_an_end_is_no_zip():
    assert cut(b'{"ZipFile":"' + TEXT.encode()) is None


def test_escaped_slashes_are_slashes():
    assert made(TEXT.replace("/", "\\/")).decoded() == CONTENT


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT.replace("A", "?"), TEXT + "\\", TEXT[:-4] + "====" + TEXT])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(InvalidParameterValue, match="ZipFile is no base64"):
        made(text).decoded()


def test_what_is_too_large_is_refused_before_it_is_decoded(monkeypatch):
    class Given:
        ZipFile = made("A" * 69_905_072)
        S3Bucket = S3Key = S3ObjectVersion = S3ObjectStorageMode = ImageUri = None

    monkeypatch.setattr(encoded.Encoded, "decoded", None)
    with pytest.raises(RequestTooLarge):
        source(Given, "CreateFunction", lambda: None)
