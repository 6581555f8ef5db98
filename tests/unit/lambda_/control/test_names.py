"""How a function may be named, and what it is not."""

from __future__ import annotations

import pytest

from kflow.aws.calls import Place
from kflow.errors import ValidationFailed
from kflow.lambda_.control import names
from kflow.lambda_.control.names import Named
from kflow.lambda_.errors import InvalidParameterValue, ResourceNotFound

HOME = Place("123456789012", "us-east-1")
OTHER = Place("111122223333", "us-east-1")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("f", Named(HOME, "f")),
        ("f:live", Named(HOME, "f", "live")),
        ("f:$LATEST", Named(HOME, "f", "$LATEST")),
        ("function:f", Named(HOME, "f")),
        ("123456789012:function:f:3", Named(HOME, "f", "3")),
        ("111122223333:f", Named(OTHER, "f")),
        ("us-east-1:111122223333:function:f", Named(OTHER, "f")),
        ("arn:aws:lambda:us-east-1:123456789012:function:f", Named(HOME, "f")),
        ("arn:aws:lambda:us-east-1:123456789012:function:f_-9:live", Named(HOME, "f_-9", "live")),
        ("arn:aws-us-gov:lambda:us-east-1:123456789012:function:f", Named(HOME, "f")),
    ],
)
def test_all_forms_name_a_function(text, wanted):
    assert names.parse(text, HOME) == wanted


def test_a_qualifier_beside_the_name_counts_and_may_say_the_same_again():
    assert names.parse("f", HOME, "3") == Named(HOME, "f", "3")
    assert names.parse("f:3", HOME, "3") == Named(HOME, "f", "3")


def test_two_qualifiers_that_differ_are_refused():
    with pytest.raises(InvalidParameterValue) as caught:
        names.parse("f:3", HOME, "4")
    assert str(caught.value) == "The derived qualifier from the function name does not match the specified qualifier."


def test_a_function_of_another_region_is_not_reachable():
    with pytest.raises(ResourceNotFound) as caught:
        names.parse("arn:aws:lambda:eu-west-1:123456789012:function:f", HOME)
    assert str(caught.value) == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"


def test_a_name_of_64_characters_is_taken_and_one_of_65_is_not():
    assert names.parse("a" * 64, HOME).name == "a" * 64
    with pytest.raises(ValidationFailed) as caught:
        names.parse("a" * 65, HOME)
    assert str(caught.value) == (
        f"1 validation error detected: Value '{'a' * 65}' at 'functionName' failed to satisfy constraint: "
        "Member must have length less than or equal to 64"
    )


@pytest.mark.parametrize("text", ["", "a b", "arn:aws:sqs:us-east-1:123456789012:f", "f:1:2:3:4"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(InvalidParameterValue):
        names.parse(text, HOME)


def test_where_no_qualifier_may_be_one_is_refused():
    with pytest.raises(InvalidParameterValue) as caught:
        names.parse_unqualified("f:1", HOME)
    assert str(caught.value) == (
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
        "Please specify either a function name or an unqualified function ARN."
    )


def test_keys_say_the_place_only_of_functions_elsewhere():
    assert names.key(HOME, HOME, "f") == "f"
    assert names.key(HOME, HOME, "f", "$LATEST") == "f"
    assert names.key(HOME, HOME, "f", "3") == "f:3"
    assert names.key(OTHER, HOME, "f", "live") == "f@111122223333.us-east-1:live"
