"""Requests by hand, in the order in which AWS finds fault with them."""

import base64
import re

import cbor2
import pytest

from kflow.aws.calls import LATER, Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.door import Door
from kflow.aws.errors import AccessRefused
from kflow.aws.formats import Response
from kflow.aws.guard import Guard
from kflow.errors import LimitExceeded, ResourceNotFound, StorageFull
from tests.unit.aws.fakes import HOME, SIGNED, Exchange, Kinesis, Timers, ask, make_door, model

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
NAME = {"StreamName": "orders"}
CBOR = "application/x-amz-cbor-1.1"
UNNAMED = (
    b"<AccessDeniedException>\n"
    b"  <Message>Unable to determine service/operation name to be authorized</Message>\n"
    b"</AccessDeniedException>\n"
)


def answered(exchange, door=None):
    (door or make_door())(exchange)
    return exchange.answer


def test_an_operation_gets_its_input_and_answers_with_its_output():
    service = Kinesis(put_record={"ShardId": "shardId-000000000000", "SequenceNumber": "49"})
    exchange = ask("PutRecord", {"StreamName": "orders", "Data": "aGVsbG8=", "PartitionKey": "k"})
    answer = answered(exchange, make_door(service))
    assert (answer.status, exchange.json) == (200, {"ShardId": "shardId-000000000000", "SequenceNumber": "49"})
    assert answer.headers[b"Content-Type"] == b"application/x-amz-json-1.1"
    ((call, given),) = service.calls
    assert (given.StreamName, given.Data, given.PartitionKey, given.ExplicitHashKey) == ("orders", b"hello", "k", None)
    assert call.context.place == Place("000000000000", "eu-west-1")
    assert (call.context.access_key, call.context.protocol, call.context.version) == ("AKID", "json", "1.1")


def test_every_answer_has_the_two_request_ids_and_no_two_are_alike():
    door = make_door(Kinesis(describe_limits={}))
    answers = [answered(ask("DescribeLimits"), door), answered(ask("Nothing"), door)]
    ids = {answer.headers[b"x-amzn-RequestId"].decode() for answer in answers}
    assert len(ids) == 2
    assert all(UUID.fullmatch(each) for each in ids)
    assert all(64 <= len(base64.b64decode(answer.headers[b"x-amz-id-2"])) <= 80 for answer in answers)


@pytest.mark.parametrize("path", ["/a/b?c=d", "//", "*"])
def test_the_path_does_not_matter(path):
    exchange = ask("DescribeLimits")
    exchange.target = path
    assert answered(exchange, make_door(Kinesis(describe_limits={}))).status == 200


def test_an_operation_without_output_answers_nothing_at_all():
    answer = answered(ask("DeleteStream", NAME), make_door(Kinesis(delete_stream=None)))
    assert (answer.status, answer.body) == (200, b"")


def test_an_operation_whose_output_is_empty_answers_an_object():
    answer = answered(ask("ListShards", NAME), make_door(Kinesis(list_shards=None)))
    assert answer.body == b"{}"


def test_cbor_is_answered_in_cbor():
    service = Kinesis(put_record={"ShardId": "s", "SequenceNumber": "1"})
    body = cbor2.dumps({"StreamName": "orders", "Data": b"hello", "PartitionKey": "k"})
    answer = answered(ask("PutRecord", body, content_type=CBOR), make_door(service))
    assert answer.headers[b"Content-Type"] == CBOR.encode()
    assert cbor2.loads(answer.body) == {"ShardId": "s", "SequenceNumber": "1"}
    assert service.calls[0][1].Data == b"hello"
    assert service.calls[0][0].context.protocol == "cbor"


def test_what_is_accepted_decides_over_the_type_of_the_request():
    answer = answered(ask("DescribeLimits", accept=CBOR), make_door(Kinesis(describe_limits={"ShardLimit": 1})))
    assert cbor2.loads(answer.body) == {"ShardLimit": 1}
    answer = answered(ask("DescribeLimits", accept="*/*"), make_door(Kinesis(describe_limits={"ShardLimit": 1})))
    assert answer.body == b'{"ShardLimit":1}'


# 1: CORS


def test_a_preflight_grants_what_is_asked():
    exchange = Exchange(
        "OPTIONS",
        headers={
            "origin": "http://localhost:3000",
            "access-control-request-headers": "a,b",
            "access-control-request-method": "POST",
        },
    )
    answer = answered(exchange)
    assert (answer.status, answer.body) == (200, b"")
    answer.headers.pop(b"x-amzn-RequestId")
    assert answer.headers == {
        b"Access-Control-Allow-Origin": b"*",
        b"Access-Control-Max-Age": b"172800",
        b"Access-Control-Allow-Headers": b"a,b",
        b"Access-Control-Allow-Methods": b"POST",
    }


def test_an_answer_to_a_page_of_this_machine_may_be_read_by_it():
    answer = answered(ask("DescribeLimits", origin="http://127.0.0.1:8080"), make_door(Kinesis(describe_limits={})))
    assert answer.status == 200
    assert answer.headers[b"Access-Control-Allow-Origin"] == b"*"
    assert answer.headers[b"Access-Control-Expose-Headers"] == (
        b"x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date"
    )


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "localhost"])
def test_a_page_of_a_foreign_site_changes_nothing(method, origin):
    service = Kinesis(describe_limits={})
    exchange = ask("DescribeLimits", origin=origin)
    exchange.method = method
    answer = answered(exchange, make_door(service))
    assert answer.status == 403
    assert b"<AccessDeniedException>" in answer.body
    assert b"Access-Control-Allow-Origin" not in answer.headers
    assert service.calls == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4566", "10.1.2.3:4566", "[::2]:4566", "a]b[", ""])
def test_a_host_that_is_not_ours_is_refused(host):
    answer = answered(ask("DescribeLimits", host=host))
    assert answer.status == 403
    assert b"call it by localhost" in answer.body


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:4566", "127.0.0.1:1", "127.8.8.8", "[::1]:4566", "a.localhost:4566", None]
)
def test_hosts_of_loopback_are_ours(host):
    assert answered(ask("DescribeLimits", host=host), make_door(Kinesis(describe_limits={}))).status == 200


def test_the_name_it_is_bound_to_is_ours_and_where_it_is_bound_to_all_any_is():
    exchange = ask("DescribeLimits", host="Broker.Test:4566", origin="http://broker.test:80")
    assert answered(exchange, make_door(Kinesis(describe_limits={}), guard=Guard(["broker.test"]))).status == 200
    exchange = ask("DescribeLimits", host="anything")
    assert answered(exchange, make_door(Kinesis(describe_limits={}), guard=Guard(None))).status == 200


def test_own_paths_go_to_their_own_handler_and_a_foreign_page_may_not_post_there():
    met = []
    door = make_door(own=met.append)
    exchange = Exchange("GET", "/_kflow/health")
    door(exchange)
    assert met == [exchange]
    foreign = Exchange("POST", "/_kflow/reset", headers={"origin": "https://evil.example"})
    assert answered(foreign, door).status == 403
    assert met == [exchange]


# 2: the method


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_anything_but_a_post_names_no_operation(method):
    answer = answered(Exchange(method, headers={"x-amz-target": "Kinesis_20131202.DescribeLimits"}))
    assert (answer.status, answer.body) == (403, UNNAMED)
    assert b"Content-Type" not in answer.headers


# 3: an empty body


def test_an_empty_body_of_a_known_operation_cannot_be_read():
    exchange = ask("PutRecord", b"")
    assert (answered(exchange).status, exchange.json) == (400, {"__type": "SerializationException"})


def test_an_empty_body_of_an_unknown_operation_is_an_unknown_operation():
    exchange = ask("Nothing", b"")
    assert (answered(exchange).status, exchange.json) == (400, {"__type": "UnknownOperationException"})


@pytest.mark.parametrize("content_type", [CBOR, "text/plain", None])
def test_an_empty_body_that_is_not_json_is_answered_in_cbor(content_type):
    answer = answered(ask("PutRecord", b"", content_type=content_type))
    assert (answer.status, cbor2.loads(answer.body)) == (400, {"__type": "SerializationException"})
    assert answer.headers[b"Content-Type"] == CBOR.encode()


# 4: the content type


@pytest.mark.parametrize("content_type", ["text/plain", None, "application/x-amz-json-1.0", "application/x-amz-json"])
def test_a_type_that_is_not_taken_makes_a_known_operation_unknown(content_type):
    answer = answered(ask("PutRecord", b"{}", content_type=content_type))
    assert (answer.status, answer.body) == (404, b"<UnknownOperationException/>\n")
    assert b"Content-Type" not in answer.headers


def test_a_type_that_is_not_taken_and_an_unknown_target_name_no_operation():
    answer = answered(ask("Nothing", b"{}", content_type="text/plain"))
    assert (answer.status, answer.body) == (403, UNNAMED)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-amz-json-1.1; charset=utf-8", " application/x-amz-json-1.1 ;a=b", "Application/X-Amz-Json-1.1"],
)
def test_parameters_and_spaces_of_the_type_do_not_matter(content_type):
    exchange = ask("DescribeLimits", content_type=content_type)
    assert answered(exchange, make_door(Kinesis(describe_limits={}))).status == 200


# 5: the body


@pytest.mark.parametrize("body", [b"{", b"[]", b'"a"', b"null", b"1", b"\xff", b"{}x", b'{"a":NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object_cannot_be_read(body):
    exchange = ask("PutRecord", body)
    assert (answered(exchange).status, exchange.json) == (400, {"__type": "SerializationException"})


@pytest.mark.parametrize("body", [b"\x80", b"\xa1", b"\x61a", b"\x9f" * 100_000, b"\xff", b"{}"])
def test_a_cbor_body_that_is_no_map_cannot_be_read(body):
    answer = answered(ask("PutRecord", body, content_type=CBOR))
    assert (answer.status, cbor2.loads(answer.body)) == (400, {"__type": "SerializationException"})


def test_plain_json_that_is_no_object_fails_in_another_envelope():
    exchange = ask("PutRecord", b"[", content_type="application/json")
    assert (answered(exchange).status, exchange.json) == (
        400,
        {"Output": {"__type": "com.amazon.coral.service#SerializationException"}, "Version": "1.0"},
    )


# 6: plain JSON


def test_plain_json_never_works():
    exchange = ask("DescribeLimits", b"{}", content_type="application/json")
    assert (answered(exchange).status, exchange.json) == (
        404,
        {"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"},
    )
    assert exchange.answer.headers[b"Content-Type"] == b"application/json"


# 7: the operation


@pytest.mark.parametrize(
    "target", ["Kinesis_20131202.Nothing", "Kinesis_20131203.PutRecord", "PutRecord", "", ".", None]
)
def test_an_unknown_operation_is_said_to_be_unknown(target):
    exchange = ask("", x_amz_target=target)
    assert (answered(exchange).status, exchange.json) == (400, {"__type": "UnknownOperationException"})


def test_an_operation_of_the_model_that_nobody_performs_says_so():
    exchange = ask("DescribeLimits")
    assert answered(exchange).status == 501
    assert exchange.json == {
        "__type": "NotImplementedException",
        "message": "kflow does not perform kinesis.DescribeLimits; call AWS for it",
    }


# 8: authentication


def test_strict_authentication_comes_after_the_body_and_before_what_is_in_it():
    met = []

    def refuse(exchange, model):
        met.append(model.service)
        raise AccessRefused("no")

    door = make_door(authenticate=refuse)
    assert answered(ask("PutRecord", b"{"), door).status == 400
    assert met == []
    exchange = ask("PutRecord", {"StreamName": 1})
    assert answered(exchange, door).status == 403
    assert exchange.json == {"__type": "AccessDeniedException", "message": "no"}
    assert answered(ask("DescribeLimits"), door).status == 403
    assert met == ["kinesis", "kinesis"]


# 9: what is in the body


def test_what_cannot_be_converted_is_said_with_a_capital_message():
    exchange = ask("PutRecord", {"StreamName": True, "Data": 1})
    assert (answered(exchange).status, exchange.json) == (
        400,
        {"__type": "SerializationException", "Message": "class java.lang.Boolean can not be converted to an String"},
    )


def test_a_number_that_is_too_large_is_told_as_the_largest_there_is():
    exchange = ask("ListStreams", {"Limit": 99_999_999_999})
    answered(exchange)
    assert exchange.json["message"] == (
        "1 validation error detected: Value '2147483647' at 'limit' failed to satisfy constraint: "
        "Member must have value less than or equal to 10000"
    )


def test_constraints_are_reported_together():
    exchange = ask("PutRecord", {"StreamName": "", "PartitionKey": "k" * 257})
    answered(exchange)
    message = (
        "4 validation errors detected: "
        "Value '' at 'streamName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; "
        "Value '' at 'streamName' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1; "
        "Value null at 'data' failed to satisfy constraint: Member must not be null; "
        f"Value '{'k' * 257}' at 'partitionKey' failed to satisfy constraint: "
        "Member must have length less than or equal to 256"
    )
    assert exchange.json == {"__type": "ValidationException", "message": message}
    assert exchange.answer.status == 400


def test_an_error_of_cbor_is_told_in_cbor():
    answer = answered(ask("PutRecord", cbor2.dumps({"StreamName": 1}), content_type=CBOR))
    assert cbor2.loads(answer.body) == {
        "__type": "SerializationException",
        "Message": "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
    }


# answers


def test_an_error_of_a_method_is_told_with_its_code():
    def fail(call, given):
        raise ResourceNotFound("Stream orders under account 000000000000 not found.")

    exchange = ask("DescribeStream", NAME)
    answered(exchange, make_door(Kinesis(describe_stream=fail)))
    assert (exchange.answer.status, exchange.json) == (
        400,
        {"__type": "ResourceNotFoundException", "message": "Stream orders under account 000000000000 not found."},
    )


def test_a_method_that_breaks_is_an_internal_failure_whose_text_stays_in_the_log(caplog):
    def fail(call, given):
        raise ZeroDivisionError("secret")

    exchange = ask("DescribeStream", NAME)
    answered(exchange, make_door(Kinesis(describe_stream=fail)))
    assert (exchange.answer.status, exchange.json) == (500, {"__type": "InternalFailure"})
    assert "secret" in caplog.text
    assert "kinesis.DescribeStream" in caplog.text
    assert "Traceback" in caplog.text


def test_a_disk_that_fails_is_an_internal_failure_that_says_what_to_do(caplog):
    def fail(call, given):
        raise StorageFull("cannot append to shard 0: the disk is full; free some space and try again")

    exchange = ask("DescribeStream", NAME)
    answered(exchange, make_door(Kinesis(describe_stream=fail)))
    text = "cannot append to shard 0: the disk is full; free some space and try again"
    assert (exchange.answer.status, exchange.json) == (
        500,
        {"__type": "InternalFailure", "message": f"kflow: {text}"},
    )
    assert f"a call failed operation=kinesis.DescribeStream: {text}" in caplog.text
    assert "Traceback" not in caplog.text  # there are thousands of them


def test_an_output_that_the_model_does_not_know_is_an_internal_failure(caplog):
    exchange = ask("DescribeLimits")
    answered(exchange, make_door(Kinesis(describe_limits={"Nonsense": 1})))
    assert (exchange.answer.status, exchange.json) == (500, {"__type": "InternalFailure"})
    assert "Nonsense" in caplog.text


def test_a_call_may_be_answered_later():
    service = Kinesis(describe_limits=LATER)
    exchange = ask("DescribeLimits")
    make_door(service)(exchange)
    assert exchange.answers == []
    ((call, _),) = service.calls
    assert not call.is_closed
    call.answer({"ShardLimit": 7})
    assert exchange.json == {"ShardLimit": 7}
    assert call.is_closed


def test_a_call_may_be_refused_later_and_a_second_answer_is_dropped(caplog):
    service = Kinesis(describe_limits=LATER)
    exchange = ask("DescribeLimits")
    make_door(service)(exchange)
    service.calls[0][0].refuse(LimitExceeded("slow down"))
    service.calls[0][0].answer({})
    assert exchange.json == {"__type": "LimitExceededException", "message": "slow down"}
    assert "answered twice operation=DescribeLimits" in caplog.text


def test_a_call_knows_that_its_peer_is_gone():
    service = Kinesis(describe_limits=LATER)
    exchange = ask("DescribeLimits")
    make_door(service)(exchange)
    call = service.calls[0][0]
    call.on_close = lambda: "told"
    assert exchange.on_close() == "told"
    exchange.is_closed = True
    assert call.is_closed


def test_long_work_is_done_a_slice_a_round():
    steps = []

    def work(call, given):
        for step in range(3):
            steps.append(step)
            yield
        return {"ShardLimit": 3}

    timers = Timers()
    exchange = ask("DescribeLimits")
    make_door(Kinesis(describe_limits=work), timers=timers)(exchange)
    assert steps == [0]
    assert [seconds for seconds, _ in timers.waiting] == [0]
    while timers.waiting:
        timers.fire()
    assert (steps, exchange.json) == ([0, 1, 2], {"ShardLimit": 3})


def test_work_whose_caller_is_gone_ends():
    ended = []

    def work(call, given):
        try:
            yield
            yield
        finally:
            ended.append(True)

    timers = Timers()
    exchange = ask("DescribeLimits")
    make_door(Kinesis(describe_limits=work), timers=timers)(exchange)
    exchange.is_closed = True
    timers.fire()
    assert (ended, exchange.answers, timers.waiting) == ([True], [], [])


def test_work_that_breaks_in_a_later_slice_is_an_internal_failure(caplog):
    def work(call, given):
        yield
        raise ZeroDivisionError

    timers = Timers()
    exchange = ask("DescribeLimits")
    make_door(Kinesis(describe_limits=work), timers=timers)(exchange)
    timers.fire()
    assert exchange.json == {"__type": "InternalFailure"}


def test_what_is_asked_before_may_refuse_or_hold_a_call():
    verdicts = [LimitExceeded("Rate exceeded"), 0.25, None]
    asked = []

    def before(service, operation, context):
        asked.append((service, operation, context.access_key))
        return verdicts.pop(0)

    timers = Timers()
    door = make_door(Kinesis(describe_limits={}), timers=timers, before=before)
    exchange = ask("DescribeLimits")
    assert (answered(exchange, door).status, exchange.json["__type"]) == (400, "LimitExceededException")
    held = ask("DescribeLimits")
    door(held)
    assert held.answers == []
    assert [seconds for seconds, _ in timers.waiting] == [0.25]
    timers.fire()
    assert held.answer.status == 200
    assert answered(ask("DescribeLimits"), door).status == 200
    assert asked == [("kinesis", "DescribeLimits", "AKID")] * 3


def test_a_stream_of_events_begins_with_its_initial_response():
    opened = []

    def subscribe(call, given):
        opened.append(call.stream())
        return LATER

    exchange = ask(
        "SubscribeToShard",
        {
            "ConsumerARN": "arn:aws:kinesis:us-east-1:000000000000:stream/orders/consumer/a:1",
            "ShardId": "shardId-000000000000",
            "StartingPosition": {"Type": "LATEST"},
        },
    )
    make_door(Kinesis(subscribe_to_shard=subscribe))(exchange)
    (stream,) = exchange.streams
    assert (stream.status, stream.headers[b"Content-Type"]) == (200, b"application/vnd.amazon.eventstream")
    assert b"initial-response" in stream.data
    opened[0].send("SubscribeToShardEvent", {"Records": [], "MillisBehindLatest": 0})
    assert b'{"Records":[],"MillisBehindLatest":0}' in stream.data


def test_a_handler_that_breaks_answers_and_raises_nothing(caplog):
    def broken(exchange):
        raise ZeroDivisionError

    exchange = Exchange("GET", "/_kflow/health")
    make_door(own=broken)(exchange)
    assert (exchange.answer.status, exchange.json) == (500, {"__type": "InternalFailure"})
    assert "ZeroDivisionError" in caplog.text


def test_a_caller_with_an_account_for_a_key_is_of_that_account():
    service = Kinesis(describe_limits={})
    door = make_door(service)
    door(ask("DescribeLimits", authorization=SIGNED.replace("AKID", "123456789012")))
    door(ask("DescribeLimits", authorization=None))
    assert [call.context.place for call, _ in service.calls] == [
        Place("123456789012", "eu-west-1"),
        Place("000000000000", "us-east-1"),
    ]


class Query:
    """A protocol as the door sees it: `Action=Name&Key=Value`."""

    name = "query"

    def route(self, models, exchange):
        action = exchange.body.partition(b"&")[0].removeprefix(b"Action=").decode()
        if action == "Denied":
            raise AccessRefused("not you")
        return next((found for model in models if (found := model.operation(action))), None)

    def parse(self, operation, exchange):
        _, _, rest = exchange.body.partition(b"&")
        return dict(pair.split("=") for pair in rest.decode().split("&") if pair)

    def serialise(self, operation, output, request_id):
        return Response(200, [(b"Content-Type", b"text/xml")], f"<{operation.name}>{request_id}".encode())

    def error(self, operation, error, request_id):
        return Response(error.http_status, [(b"Content-Type", b"text/xml")], f"<{error.code}>{error}".encode())


class Sts:
    service_name = "sts"

    def __init__(self):
        self.calls = []

    def get_session_token(self, call, given):
        self.calls.append((call, given))
        return {}


def query_door(service, **options):
    models = {"sts": model("sts"), "kinesis": model()}
    dispatcher = Dispatcher([service, Kinesis(describe_limits={})], models, call_later=Timers().call_later)
    return Door(dispatcher, home=HOME, formats=[Query()], **options)


def test_another_protocol_takes_what_is_its_own():
    service = Sts()
    exchange = Exchange(body=b"Action=GetSessionToken&SerialNumber=123456789", headers={"authorization": "x"})
    answer = answered(exchange, query_door(service))
    assert (answer.status, answer.headers[b"Content-Type"]) == (200, b"text/xml")
    ((call, given),) = service.calls
    assert (given.SerialNumber, given.TokenCode, call.context.protocol) == ("123456789", None, "query")
    assert answer.body.decode() == f"<GetSessionToken>{call.context.request_id}"
    assert answer.headers[b"x-amzn-RequestId"].decode() == call.context.request_id


def test_its_constraints_are_checked_and_told_in_its_own_form():
    answer = answered(Exchange(body=b"Action=GetSessionToken&SerialNumber=1"), query_door(Sts()))
    assert answer.status == 400
    assert answer.body.startswith(b"<ValidationException>1 validation error detected: Value '1' at 'serialNumber'")
    assert answered(Exchange(body=b"Action=Denied"), query_door(Sts())).body == b"<AccessDeniedException>not you"


def test_what_is_not_its_own_goes_the_way_of_json():
    door = query_door(Sts())
    assert answered(ask("DescribeLimits"), door).status == 200
    assert answered(Exchange(body=b"Action=Nothing"), door).body == UNNAMED
    signed_for_another = Exchange(body=b"Action=GetSessionToken", headers={"authorization": SIGNED})
    assert answered(signed_for_another, door).body == UNNAMED


def test_strict_authentication_holds_for_it_too():
    def refuse(exchange, model):
        raise AccessRefused(model.service)

    answer = answered(Exchange(body=b"Action=GetSessionToken"), query_door(Sts(), authenticate=refuse))
    assert answer.body == b"<AccessDeniedException>sts"


def test_an_answer_that_comes_too_late_is_dropped(caplog):
    service = Kinesis(describe_limits=LATER)
    exchange = ask("DescribeLimits")
    make_door(service)(exchange)
    call = service.calls[0][0]
    assert call.on_close is None
    call.answer({})
    call.refuse(LimitExceeded("late"))
    assert len(exchange.answers) == 1
    assert "answered twice" in caplog.text


def test_a_handler_that_breaks_after_its_peer_is_gone_answers_nothing(caplog):
    def broken(exchange):
        exchange.is_closed = True
        raise ZeroDivisionError

    exchange = Exchange("GET", "/_kflow/health")
    make_door(own=broken)(exchange)
    assert exchange.answers == []
    assert "ZeroDivisionError" in caplog.text


def test_work_that_breaks_when_it_is_ended_is_logged(caplog):
    def work(call, given):
        try:
            yield
        finally:
            raise ZeroDivisionError

    timers = Timers()
    exchange = ask("DescribeLimits")
    make_door(Kinesis(describe_limits=work), timers=timers)(exchange)
    exchange.is_closed = True
    timers.fire()
    assert exchange.answers == []
    assert "ZeroDivisionError" in caplog.text


def test_a_foreign_page_may_look_and_a_preflight_may_ask_for_nothing():
    met = []
    door = make_door(own=met.append)
    foreign = Exchange("GET", "/_kflow/health", headers={"origin": "https://evil.example"})
    door(foreign)
    assert met == [foreign]
    answer = answered(Exchange("OPTIONS", headers={"origin": "http://localhost"}), door)
    assert b"Access-Control-Allow-Headers" not in answer.headers


def test_subscriptions_in_cbor_and_again_have_the_same_vocabulary():
    opened = []

    def subscribe(call, given):
        opened.append(call.stream())
        return LATER

    body = {
        "ConsumerARN": "arn:aws:kinesis:us-east-1:000000000000:stream/orders/consumer/a:1",
        "ShardId": "shardId-000000000000",
        "StartingPosition": {"Type": "LATEST"},
    }
    door = make_door(Kinesis(subscribe_to_shard=subscribe))
    exchanges = [ask("SubscribeToShard", cbor2.dumps(body), content_type=CBOR) for _ in range(2)]
    exchanges.append(ask("SubscribeToShard", body))
    exchanges.append(ask("SubscribeToShard", body))
    for exchange in exchanges:
        door(exchange)
    assert opened[0].vocabulary is opened[1].vocabulary
    assert opened[2].vocabulary is opened[3].vocabulary
    opened[0].send("SubscribeToShardEvent", {"Records": [{"Data": b"hello"}]})
    assert cbor2.dumps({"Records": [{"Data": b"hello"}]}) in exchanges[0].streams[0].data
