"""The query and REST protocols, in what botocore's serializers do not show."""

import json
import math

import pytest

from kflow.aws.columns import Columns, Constant
from kflow.aws.errors import InternalFailure, SerializationFailed
from kflow.aws.models import load
from kflow.aws.query import Ec2, InvalidAction, MalformedInput, Query
from kflow.aws.rest_json import RestJson
from kflow.aws.rest_xml import RestXml
from kflow.aws.spoken import formats_of
from kflow.errors import AwsError, InternalError, ResourceNotFound

ID = "11111111-2222-4333-8444-555555555555"


class Request:
    version = "1.1"

    def __init__(self, method="POST", target="/", headers=(), body=b""):
        self.method, self.target, self.headers, self.body = method, target, dict(headers), body


def form(text):
    return Request(headers={"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, body=text.encode())


def test_an_action_is_found_in_a_form_and_in_a_query():
    sns = load("sns")
    assert Query().route([sns], form("Action=Publish&Version=2010-03-31")).name == "Publish"
    assert Query().route([sns], Request("GET", "/?Action=ListTopics")).name == "ListTopics"
    assert Query().route([sns], form("Message=x")) is None
    assert Query().route([sns], Request(headers={"content-type": "application/json"}, body=b"{}")) is None


def test_the_version_tells_services_with_the_same_action_apart():
    iam, sns = load("iam"), load("sns")
    assert Query().route([iam, sns], form("Action=TagResource&Version=2010-03-31")).model is sns


def test_an_action_that_does_not_exist_is_refused():
    with pytest.raises(InvalidAction, match="Could not find operation Shout for version 2010-03-31"):
        Query().route([load("sns")], form("Action=Shout&Version=2010-03-31"))


def test_a_form_is_read_leniently_where_aws_does():
    publish = load("sns").operation("Publish")
    found = Query().parse(
        publish,
        form(
            "Action=Publish&TopicArn=a&Message=b+c%C3%BC&Unknown.deep.thing=1&Message=second"
            "&MessageAttributes.entry.2.Name=two&MessageAttributes.entry.2.Value.DataType=Number"
            "&MessageAttributes.entry.10.Name=ten&MessageAttributes.entry.10.Value.BinaryValue=AP8%3D"
        ),
    )

    assert found == {
        "TopicArn": "a",
        "Message": "b cü",
        "MessageAttributes": {"two": {"DataType": "Number"}, "ten": {"BinaryValue": b"\0\xff"}},
    }
    assert list(found["MessageAttributes"]) == ["two", "ten"]


@pytest.mark.parametrize(
    "text",
    [
        "MessageAttributes.entry.1.Name=a",
        "MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.BinaryValue=x",
    ],
)
def test_a_form_that_does_not_fit_is_refused(text):
    with pytest.raises(MalformedInput):
        Query().parse(load("sns").operation("Publish"), form(text))


def test_a_query_answer_has_wrapper_namespace_and_request_id():
    status, headers, body = Query().serialise(load("sns").operation("Publish"), {"MessageId": "a<&>\r\0"}, ID)

    assert (status, list(headers)) == (200, [(b"Content-Type", b"text/xml")])
    assert body.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>'
        "<MessageId>a&#60;&#38;&#62;&#13;\ufffd</MessageId></PublishResult>"
        f"<ResponseMetadata><RequestId>{ID}</RequestId></ResponseMetadata></PublishResponse>"
    )


def test_an_operation_without_output_answers_with_metadata_only():
    body = Query().serialise(load("sns").operation("DeleteTopic"), None, ID).body
    assert b"><ResponseMetadata>" in body
    assert b"Result>" not in body


def test_an_error_of_the_query_protocol():
    status, _, body = Query().error(load("sns").operation("Publish"), ResourceNotFound("no <topic>"), ID)

    assert status == 404 if load("sns").error("ResourceNotFoundException") else 400
    assert b"<Error><Type>Sender</Type><Code>ResourceNotFound</Code>" in body  # as the model writes it
    assert b"<Message>no &#60;topic&#62;</Message></Error><RequestId>" + ID.encode() in body


def test_the_model_knows_the_status_of_an_error():
    class NotFound(AwsError):
        code = "NotFound"
        http_status = 400
        sender_fault = True

    assert Query().error(load("sns").operation("Publish"), NotFound("x"), ID).status == 404


@pytest.mark.parametrize("made", [Query(), Ec2(), RestJson(), RestXml()])
def test_an_internal_failure_says_what_it_was_given_to_say(made):
    status, _, body = made.error(None, InternalFailure("kflow: the disk is full"), ID)
    assert status == 500
    assert b"kflow: the disk is full" in body
    assert b"None" not in made.error(None, InternalFailure(), ID).body


def test_an_error_of_ec2():
    body = Ec2().error(None, ResourceNotFound("x"), ID).body
    assert body.endswith(
        b"<Response><Errors><Error><Code>ResourceNotFoundException</Code><Message>x</Message></Error></Errors>"
        b"<RequestID>" + ID.encode() + b"</RequestID></Response>"
    )


def test_there_are_no_events_in_the_query_protocol():
    with pytest.raises(InternalError, match="cannot have events"):
        Query().vocabulary(load("sns").operation("Publish"))


def test_columns_are_rows_in_xml_and_in_json():
    topics = load("sns").operation("ListTopics")
    body = Query().serialise(topics, {"Topics": Columns(2, {"TopicArn": ["a", "b"]})}, ID).body
    assert b"<Topics><member><TopicArn>a</TopicArn></member><member><TopicArn>b</TopicArn></member></Topics>" in body

    layers = load("lambda").operation("ListLayers")
    answer = RestJson().serialise(
        layers, {"Layers": Columns(2, {"LayerName": ["a", "b"], "LayerArn": Constant("c")})}, ID
    )
    assert json.loads(answer.body) == {
        "Layers": [{"LayerName": "a", "LayerArn": "c"}, {"LayerName": "b", "LayerArn": "c"}]
    }


def test_a_path_finds_its_operation_and_gives_its_labels():
    rest, functions = RestJson(), load("lambda")
    request = Request("GET", "/2015-03-31/functions/a%2Fb%3A1/policy?Qualifier=%24LATEST&x=1")
    operation = rest.route([functions], request)

    assert operation.name == "GetPolicy"
    assert rest.parse(operation, request) == {"FunctionName": "a/b:1", "Qualifier": "$LATEST"}
    assert rest.route([functions], Request("PATCH", "/2015-03-31/functions")) is None
    assert rest.route([functions], Request("GET", "/elsewhere")) is None
    assert rest.route([functions], Request("GET", "/2015-03-31/functions")).name == "ListFunctions"


@pytest.mark.parametrize(
    ("method", "target", "headers", "name"),
    [
        ("GET", "/bucket", {}, "ListObjects"),
        ("GET", "/bucket/", {}, "ListObjects"),
        ("GET", "/bucket?list-type=2", {}, "ListObjectsV2"),
        ("GET", "/bucket?acl", {}, "GetBucketAcl"),
        ("GET", "/bucket/a/b/c", {}, "GetObject"),
        ("GET", "/bucket/a/b?acl", {}, "GetObjectAcl"),
        ("PUT", "/bucket/a", {}, "PutObject"),
        ("PUT", "/bucket/a", {"x-amz-copy-source": "x"}, "CopyObject"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", {}, "UploadPart"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", {"x-amz-copy-source": "x"}, "UploadPartCopy"),
        ("POST", "/bucket/a?uploads", {}, "CreateMultipartUpload"),
        ("POST", "/bucket/a?uploadId=x", {}, "CompleteMultipartUpload"),
        ("POST", "/bucket?delete", {}, "DeleteObjects"),
        ("DELETE", "/bucket/a?uploadId=x", {}, "AbortMultipartUpload"),
        ("HEAD", "/bucket/a", {}, "HeadObject"),
    ],
)
def test_operations_of_one_path_are_told_apart_by_what_the_request_has(method, target, headers, name):
    assert RestXml().route([load("s3")], Request(method, target, headers)).name == name


def test_headers_with_a_prefix_are_a_map_and_the_body_is_a_payload():
    put = load("s3").operation("PutObject")
    request = Request(
        "PUT",
        "/b/k%20y/z",
        {"x-amz-meta-one": "1", "content-length": "3", "x-amz-object-lock-retain-until-date": "2016-04-04T19:58:46Z"},
        b"abc",
    )

    assert RestXml().parse(put, request) == {
        "Bucket": "b",
        "Key": "k y/z",
        "Metadata": {"one": "1"},
        "ContentLength": 3,
        "ObjectLockRetainUntilDate": 1459799926000,
        "Body": b"abc",
    }


def test_lists_in_headers_may_be_in_quotes():
    attributes = load("s3").operation("GetObjectAttributes")
    request = Request("GET", "/b/k?attributes", {"x-amz-object-attributes": 'ETag, "a,b" ,"c\\"d",ObjectSize'})

    assert RestXml().parse(attributes, request)["ObjectAttributes"] == ["ETag", "a,b", 'c"d', "ObjectSize"]


def test_a_line_end_in_a_header_s_value_begins_no_header():
    _, headers, _ = RestXml().serialise(
        load("s3").operation("GetObject"),
        {"ContentType": "a\r\nSet-Cookie: b", "Metadata": {"k": "v\nw", "x\r\ny": "ü€"}},
        ID,
    )

    assert (b"Content-Type", b"a Set-Cookie: b") in headers
    assert (b"x-amz-meta-k", b"v w") in headers
    assert (b"x-amz-meta-x y", b"\xfc?") in headers


def test_a_json_value_in_a_header_is_base64():
    rest, lex = RestJson(), load("lex-runtime")
    operation = lex.operation("PostContent")
    request = Request(
        "POST",
        "/bot/a/alias/b/user/c/content",
        {"x-amz-lex-session-attributes": "eyJhIjoxfQ==", "content-type": "text/plain"},
        b"x",
    )
    assert rest.parse(operation, request)["sessionAttributes"] == '{"a":1}'
    request.headers["x-amz-lex-session-attributes"] = "?"
    with pytest.raises(SerializationFailed, match="is no base64"):
        rest.parse(operation, request)
    headers = rest.serialise(operation, {"slots": '{"a":1}'}, ID).headers
    assert (b"x-amz-lex-slots", b"eyJhIjoxfQ==") in headers


def test_timestamps_in_json_have_the_form_that_their_shape_names():
    events = load("lambda").operation("CreateEventSourceMapping")
    body = b'{"FunctionName":"f","StartingPositionTimestamp":"2016-04-04T19:58:46.480Z"}'
    request = Request("POST", "/2015-03-31/event-source-mappings", {}, body)
    assert RestJson().parse(events, request)["StartingPositionTimestamp"] == 1459799926480
    assert b'"LastModified":1459799926.48' in RestJson().serialise(events, {"LastModified": 1459799926480}, ID).body

    iso = load("apigatewayv2").operation("GetApi")
    assert (
        b'"createdDate":"2016-04-04T19:58:46.480Z"'
        in RestJson().serialise(iso, {"CreatedDate": 1459799926480}, ID).body
    )


def test_numbers_without_digits_are_words_in_json():
    operation = load("xray").operation("PutTelemetryRecords")
    assert operation is not None
    sampling = load("xray").operation("CreateSamplingRule")
    answer = RestJson().serialise(sampling, {"SamplingRuleRecord": {"SamplingRule": {"FixedRate": math.inf}}}, ID)
    assert b'"FixedRate":"Infinity"' in answer.body


def test_an_error_of_rest_json_has_the_names_of_its_shape():
    functions = load("lambda")
    answer = RestJson().error(functions.operation("GetFunction"), ResourceNotFound("gone"), ID)

    assert answer.status == 404
    assert (b"x-amzn-ErrorType", b"ResourceNotFoundException") in answer.headers
    assert json.loads(answer.body) == {"Message": "gone", "Type": "User"}


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(SerializationFailed):
        RestJson().parse(load("lambda").operation("CreateFunction"), Request("POST", "/2015-03-31/functions", {}, body))


def entity_bomb(encoding):
    return '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Tagging>&b;</Tagging>'.encode(encoding)


@pytest.mark.parametrize("body", [b"<", b"text", b"\xff\xfe", entity_bomb("utf-8"), entity_bomb("utf-16")])
def test_a_body_that_is_no_xml_or_declares_entities_is_refused(body):
    with pytest.raises(SerializationFailed):
        RestXml().parse(load("s3").operation("PutBucketTagging"), Request("PUT", "/b?tagging", {}, body))


def test_xml_that_goes_deeper_than_any_model_is_refused_or_passed_over():
    body = b"<Tagging><TagSet>" + b"<Tag>" * 5000 + b"</Tag>" * 5000 + b"</TagSet></Tagging>"
    found = RestXml().parse(load("s3").operation("PutBucketTagging"), Request("PUT", "/b?tagging", {}, body))
    assert found == {"Bucket": "b", "Tagging": {"TagSet": [{}]}}


def test_attributes_of_xml_are_found_whatever_their_namespace_is_called():
    body = (
        b'<AccessControlPolicy><AccessControlList><Grant><Grantee xmlns:i="http://www.w3.org/2001/XMLSchema-instance" '
        b'i:type="CanonicalUser"><ID>x</ID></Grantee></Grant></AccessControlList></AccessControlPolicy>'
    )
    found = RestXml().parse(load("s3").operation("PutBucketAcl"), Request("PUT", "/b?acl", {}, body))

    assert found["AccessControlPolicy"] == {"Grants": [{"Grantee": {"Type": "CanonicalUser", "ID": "x"}}]}


def test_an_error_of_s3_is_an_error_element():
    body = RestXml().error(load("s3").operation("GetObject"), ResourceNotFound("x"), ID).body
    assert body.endswith(
        b"<Error><Code>ResourceNotFoundException</Code><Message>x</Message><RequestId>"
        + ID.encode()
        + b"</RequestId></Error>"
    )


def test_only_the_formats_of_the_models_are_made():
    assert formats_of([load("kinesis")]) == []
    assert [made.name for made in formats_of([load("lambda"), load("sns"), load("s3"), load("ec2")])] == [
        "query",
        "ec2",
        "rest-json",
        "rest-xml",
    ]
