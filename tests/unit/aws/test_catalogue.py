"""What services are called on the wire, from the first lines of their models."""

import gzip

from kflow.aws import catalogue
from kflow.aws.catalogue import Named, named


def test_a_service_is_signed_for_by_its_endpoint_prefix_where_its_model_says_no_more():
    assert named("s3") == Named("s3", "s3", "", "rest-xml")
    assert named("stepfunctions") == Named("stepfunctions", "states", "AWSStepFunctions", "json")
    assert named("dynamodbstreams") == Named("dynamodbstreams", "dynamodb", "DynamoDBStreams_20120810", "json")


def test_a_service_that_there_is_not_has_no_names():
    assert named("nothing") is None


def test_a_model_that_cannot_be_read_has_no_names(tmp_path):
    for name, content in (("torn", b"\x1f\x8bx"), ("empty", gzip.compress(b"{}")), ("none", None)):
        folder = tmp_path / name / "2020-01-01"
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "service-2.json.gz").write_bytes(content)
        assert catalogue._read(tmp_path / name) is None


def test_all_services_have_names():
    found = {each.service: each for each in catalogue.everything()}
    assert len(found) > 300
    assert found["bedrock-runtime"].signing_name == "bedrock"
