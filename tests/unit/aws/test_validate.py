"""Constraints of the models, in AWS's words."""

import pytest

from kflow.aws.shapes import Model
from kflow.aws.validate import validate
from kflow.errors import ValidationFailed
from tests.unit.aws.fakes import operation


def failures(name, **values):
    """The items of the text, without its head."""
    try:
        validate(operation(name).input, values)
    except ValidationFailed as error:
        head, _, items = str(error).partition(" detected: ")
        found = items.split("; ")
        assert head == (f"{len(found)} validation errors" if len(found) > 1 else "1 validation error")
        return found
    return []


def of(name, shapes):
    model = Model("test", {"metadata": {"protocol": "json", "endpointPrefix": "t"}, "operations": {}, "shapes": shapes})
    return model.structure(name)


LONG = "Member must have length less than or equal to"
SHORT = "Member must have length greater than or equal to"


def test_a_required_member_that_is_absent_is_null():
    assert failures("PutRecord", StreamName="a") == [
        "Value null at 'data' failed to satisfy constraint: Member must not be null"
    ]
    assert failures("SplitShard") == [
        "Value null at 'shardToSplit' failed to satisfy constraint: Member must not be null",
        "Value null at 'newStartingHashKey' failed to satisfy constraint: Member must not be null",
    ]


def test_an_empty_string_fails_its_pattern_and_its_length():
    assert failures("DescribeStream", StreamName="") == [
        (
            "Value '' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        ),
        f"Value '' at 'streamName' failed to satisfy constraint: {SHORT} 1",
    ]


@pytest.mark.parametrize("name", ["a\n", "a b", "ü", "\u0661", "a/b"])
def test_a_pattern_must_match_the_whole_string_in_ascii(name):
    assert failures("DescribeStream", StreamName=name) == [
        (
            f"Value '{name}' at 'streamName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        )
    ]


def test_the_pattern_is_printed_as_the_model_has_it():
    assert failures("PutRecord", Data=b"", ExplicitHashKey="01") == [
        (
            "Value '01' at 'explicitHashKey' failed to satisfy constraint: "
            r"Member must satisfy regular expression pattern: ^(0|([1-9]\d{0,38}))$"
        )
    ]


def test_numbers_have_values_and_strings_have_lengths():
    assert failures("DescribeStream", Limit=0) == [
        "Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
    ]
    assert failures("DescribeStream", Limit=10001) == [
        "Value '10001' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 10000"
    ]
    assert failures("PutRecord", Data=b"", PartitionKey="é" * 256) == []
    assert failures("PutRecord", Data=b"", PartitionKey="k" * 257) == [
        f"Value '{'k' * 257}' at 'partitionKey' failed to satisfy constraint: {LONG} 256"
    ]


def test_an_enum_lists_its_values_in_the_order_of_the_model():
    assert failures("GetShardIterator", ShardId="0", ShardIteratorType="NOW") == [
        (
            "Value 'NOW' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: "
            "[AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP]"
        )
    ]


def test_members_within_lists_and_structures_have_paths():
    assert failures("PutRecords", Records=[{"Data": b""}, {"PartitionKey": ""}]) == [
        "Value null at 'records.2.member.data' failed to satisfy constraint: Member must not be null",
        f"Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: {SHORT} 1",
    ]
    assert failures("ListShards", ShardFilter={"Type": "X"})[0].startswith("Value 'X' at 'shardFilter.type' failed")
    assert failures("ListShards", StreamARN="x")[0].startswith("Value 'x' at 'streamARN' failed")


def test_lists_of_structures_and_blobs_are_not_shown():
    assert failures("PutRecords", Records=[]) == [f"Value at 'records' failed to satisfy constraint: {SHORT} 1"]
    shape = of("I", {"I": {"type": "structure", "members": {"D": {"shape": "B"}}}, "B": {"type": "blob", "max": 3}})
    with pytest.raises(ValidationFailed) as caught:
        validate(shape, {"D": b"long"})
    assert str(caught.value) == f"1 validation error detected: Value at 'd' failed to satisfy constraint: {LONG} 3"


def test_a_list_of_strings_reports_its_elements_once():
    assert failures("RemoveTagsFromStream", TagKeys=["", "a", "b" * 129]) == [
        (
            f"Value '[, a, {'b' * 129}]' at 'tagKeys' failed to satisfy constraint: "
            f"Member must satisfy constraint: [{LONG} 128, {SHORT} 1]"
        )
    ]
    assert failures("RemoveTagsFromStream", TagKeys=[]) == [
        f"Value '[]' at 'tagKeys' failed to satisfy constraint: {SHORT} 1"
    ]
    assert failures("RemoveTagsFromStream", TagKeys=["a", None]) == [
        "Value null at 'tagKeys.2.member' failed to satisfy constraint: Member must not be null"
    ]
    assert failures("EnableEnhancedMonitoring", ShardLevelMetrics=["X"]) == [
        (
            "Value '[X]' at 'shardLevelMetrics' failed to satisfy constraint: Member must satisfy constraint: "
            "[Member must satisfy enum value set: [IncomingBytes, IncomingRecords, OutgoingBytes, OutgoingRecords, "
            "WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded, IteratorAgeMilliseconds, ALL]]"
        )
    ]


def test_a_map_reports_its_keys_and_its_values():
    assert failures("AddTagsToStream", Tags={"": "v", "k": "v" * 257}) == [
        (
            f"Value '{{=v, k={'v' * 257}}}' at 'tags' failed to satisfy constraint: "
            f"Map keys must satisfy constraint: [{LONG} 128, {SHORT} 1]"
        ),
        (
            f"Value '{{=v, k={'v' * 257}}}' at 'tags' failed to satisfy constraint: "
            f"Map value must satisfy constraint: [{LONG} 256, {SHORT} 0]"
        ),
    ]
    assert failures("AddTagsToStream", Tags={}) == [f"Value '{{}}' at 'tags' failed to satisfy constraint: {SHORT} 1"]
    assert failures("AddTagsToStream", Tags={"k": None}) == [
        "Value null at 'tags.k.member' failed to satisfy constraint: Member must not be null"
    ]


def test_maps_of_structures_are_looked_into():
    shapes = {
        "I": {"type": "structure", "members": {"M": {"shape": "M"}}},
        "M": {"type": "map", "max": 1, "key": {"shape": "S"}, "value": {"shape": "V"}},
        "S": {"type": "string"},
        "V": {"type": "structure", "required": ["N"], "members": {"N": {"shape": "N"}}},
        "N": {"type": "double", "min": 1, "max": 2},
    }
    with pytest.raises(ValidationFailed) as caught:
        validate(of("I", shapes), {"M": {"a": {"N": 0.5}, "b": {}}})
    assert str(caught.value) == (
        f"3 validation errors detected: Value at 'm' failed to satisfy constraint: {LONG} 1; "
        "Value '0.5' at 'm.a.member.n' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value null at 'm.b.member.n' failed to satisfy constraint: Member must not be null"
    )


def test_at_most_ten_are_reported():
    found = failures("PutRecords", Records=[{}] * 12)
    assert len(found) == 10
    assert found[9].startswith("Value null at 'records.10.member.data'")


def test_a_value_too_long_for_its_pattern_is_only_too_long():
    (found,) = failures("DescribeStream", StreamARN=("stream/" * 10_000) + " ")
    assert found.endswith(f"{LONG} 2048")
    assert len(found) < 66_000


def test_a_hostile_name_costs_little():
    """Each of the pattern's stars could take any of the many places: tried all, that is 10**9 steps."""
    hostile = "arn:aws" + ":kinesis::123456789012:" * 80
    assert len(failures("DescribeStream", StreamARN=hostile)) == 1


def test_values_are_shown_as_java_shows_them():
    shapes = {
        "I": {"type": "structure", "members": {"F": {"shape": "F"}, "M": {"shape": "M"}, "P": {"shape": "P"}}},
        "F": {"type": "list", "max": 1, "member": {"shape": "B"}},
        "M": {"type": "map", "max": 1, "key": {"shape": "S"}, "value": {"shape": "B"}},
        "P": {"type": "list", "member": {"shape": "S"}},
        "S": {"type": "string", "pattern": "[a-z]"},
        "B": {"type": "boolean"},
    }
    with pytest.raises(ValidationFailed) as caught:
        validate(of("I", shapes), {"F": [True, False], "M": {"a": True, "b": None}, "P": ["a", "1"]})
    assert str(caught.value) == (
        f"4 validation errors detected: Value '[true, false]' at 'f' failed to satisfy constraint: {LONG} 1; "
        f"Value '{{a=true, b=null}}' at 'm' failed to satisfy constraint: {LONG} 1; "
        "Value null at 'm.b.member' failed to satisfy constraint: Member must not be null; "
        "Value '[a, 1]' at 'p' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must satisfy regular expression pattern: [a-z]]"
    )
