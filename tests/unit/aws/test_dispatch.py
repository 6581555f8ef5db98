"""Calls that come from this process: dictionaries in, dictionaries out."""

import datetime as dt

import pytest

from kflow.aws.calls import LATER, Context
from kflow.aws.columns import Columns, Constant
from kflow.aws.dispatch import Dispatcher
from kflow.aws.errors import InternalFailure, NotSpoken, SerializationFailed, UnknownOperation
from kflow.aws.local import LocalOutput
from kflow.errors import ResourceNotFound, StorageError, ValidationFailed
from tests.unit.aws.fakes import HOME, Kinesis, Timers, model

CONTEXT = Context(place=HOME, request_id="id")
ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"


class Results(list):
    def one(self):
        (result,) = self
        return result


def invoke(service, operation, parameters, timers=None):
    results = Results()
    dispatcher = Dispatcher([service], {"kinesis": model()}, call_later=(timers or Timers()).call_later)
    dispatcher.invoke(CONTEXT, "kinesis", operation, parameters, results.append)
    return results


def test_blobs_and_times_are_those_of_python():
    service = Kinesis(
        get_records={
            "Records": Columns(
                2,
                {
                    "SequenceNumber": ["1", "2"],
                    "Data": [b"a", None],
                    "ApproximateArrivalTimestamp": [1_700_000_000_123, None],
                    "EncryptionType": Constant("KMS"),
                },
            ),
            "NextShardIterator": None,
        }
    )
    assert invoke(service, "GetRecords", {"ShardIterator": "x", "Limit": 5}).one() == {
        "Records": [
            {
                "SequenceNumber": "1",
                "Data": b"a",
                "ApproximateArrivalTimestamp": dt.datetime(2023, 11, 14, 22, 13, 20, 123_000, dt.UTC),
                "EncryptionType": "KMS",
            },
            {"SequenceNumber": "2", "EncryptionType": "KMS"},
        ]
    }
    ((call, given),) = service.calls
    assert (given.ShardIterator, given.Limit, call.context) == ("x", 5, CONTEXT)


@pytest.mark.parametrize("data", [b"hello", bytearray(b"hello"), "hello"])
def test_a_blob_may_be_bytes_or_text_that_is_sent_as_utf8(data):
    service = Kinesis(put_record={})
    invoke(service, "PutRecord", {"Data": data, "PartitionKey": "k"})
    assert service.calls[0][1].Data == b"hello"


@pytest.mark.parametrize(
    "time",
    [
        dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC),
        1_700_000_000,
        1_700_000_000.0,
        dt.datetime.fromtimestamp(1_700_000_000),  # noqa: DTZ006 # without a time zone: local time
    ],
)
def test_a_timestamp_may_be_a_datetime_or_seconds(time):
    service = Kinesis(list_stream_consumers={})
    invoke(service, "ListStreamConsumers", {"StreamARN": ARN, "StreamCreationTimestamp": time})
    assert service.calls[0][1].StreamCreationTimestamp == 1_700_000_000_000


def test_what_is_wrong_is_told_in_the_same_words_as_on_the_wire():
    assert isinstance(invoke(Kinesis(), "PutRecord", {"Data": 1}).one(), SerializationFailed)
    error = invoke(Kinesis(), "PutRecord", {}).one()
    assert isinstance(error, ValidationFailed)
    assert str(error) == (
        "1 validation error detected: Value null at 'data' failed to satisfy constraint: Member must not be null"
    )


def test_what_is_unknown_or_not_performed_is_told():
    assert isinstance(invoke(Kinesis(), "Nothing", {}).one(), UnknownOperation)
    assert isinstance(invoke(Kinesis(), "DescribeLimits", {}).one(), NotSpoken)
    results = Results()
    Dispatcher([], {}, call_later=Timers().call_later).invoke(CONTEXT, "sqs", "SendMessage", {}, results.append)
    assert isinstance(results.one(), UnknownOperation)


@pytest.mark.parametrize("error", [ResourceNotFound("gone"), StorageError("disk")])
def test_errors_of_a_method_come_as_they_are(error):
    def fail(call, given):
        raise error

    assert invoke(Kinesis(describe_limits=fail), "DescribeLimits", {}).one() is error


def test_a_method_that_breaks_is_an_internal_failure(caplog):
    def fail(call, given):
        raise ZeroDivisionError

    assert isinstance(invoke(Kinesis(describe_limits=fail), "DescribeLimits", {}).one(), InternalFailure)
    assert "ZeroDivisionError" in caplog.text


def test_an_output_that_the_model_does_not_know_is_an_internal_failure(caplog):
    assert isinstance(invoke(Kinesis(describe_limits={"No": 1}), "DescribeLimits", {}).one(), InternalFailure)
    assert "'No'" in caplog.text


def test_an_answer_may_come_later_and_only_once(caplog):
    service = Kinesis(describe_limits=LATER)
    results = invoke(service, "DescribeLimits", {})
    assert results == []
    call = service.calls[0][0]
    call.answer({"ShardLimit": 1})
    call.refuse(ResourceNotFound("too late"))
    call.answer({})
    assert results == [{"ShardLimit": 1}]
    assert "answered twice" in caplog.text


def test_work_in_slices_is_driven_by_the_loop():
    def work(call, given):
        yield
        return {"ShardLimit": 2}

    timers = Timers()
    results = invoke(Kinesis(describe_limits=work), "DescribeLimits", {}, timers)
    assert results == []
    timers.fire()
    assert results == [{"ShardLimit": 2}]


def test_operations_without_output_answer_an_empty_dictionary():
    assert invoke(Kinesis(delete_stream=None), "DeleteStream", {"StreamName": "a"}).one() == {}


def test_events_come_over_http_only():
    def subscribe(call, given):
        call.stream()

    parameters = {"ConsumerARN": f"{ARN}/consumer/c:1", "ShardId": "0", "StartingPosition": {"Type": "LATEST"}}
    error = invoke(Kinesis(subscribe_to_shard=subscribe), "SubscribeToShard", parameters).one()
    assert isinstance(error, NotSpoken)
    assert str(error) == "the events of SubscribeToShard come over HTTP only"


def test_lists_maps_and_datetimes_come_as_they_are():
    moment = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    summary = {"StreamName": "a", "StreamCreationTimestamp": moment}
    assert invoke(Kinesis(list_streams={"StreamSummaries": [summary], "StreamNames": ["a"]}), "ListStreams", {}) == [
        {"StreamSummaries": [summary], "StreamNames": ["a"]}
    ]


def test_maps_are_dictionaries():
    shape = model("sqs").operation("GetQueueAttributes")
    assert LocalOutput().read(shape, {"Attributes": {"a": "b"}}) == {"Attributes": {"a": "b"}}


def test_a_call_that_is_held_back_and_then_closed_is_not_performed():
    timers, results = Timers(), Results()
    service = Kinesis(describe_limits={})
    dispatcher = Dispatcher([service], {"kinesis": model()}, call_later=timers.call_later, before=lambda *_: 1.0)
    dispatcher.invoke(CONTEXT, "kinesis", "DescribeLimits", {}, results.append)
    ((_, call),) = timers.waiting
    call()
    assert results == [{}]
    call()  # it is closed now
    assert (results, len(service.calls)) == ([{}], 1)


def test_work_may_refuse_in_a_later_slice():
    def work(call, given):
        yield
        raise ResourceNotFound("gone")

    timers = Timers()
    results = invoke(Kinesis(describe_limits=work), "DescribeLimits", {}, timers)
    timers.fire()
    assert str(results.one()) == "gone"


def test_wrong_timestamps_of_this_process_are_told():
    parameters = {"StreamARN": ARN, "StreamCreationTimestamp": "now"}
    error = invoke(Kinesis(), "ListStreamConsumers", parameters).one()
    assert str(error) == "class java.lang.String can not be converted to milliseconds since epoch"
    parameters["StreamCreationTimestamp"] = 2**70
    service = Kinesis(list_stream_consumers={})
    assert invoke(service, "ListStreamConsumers", parameters) == [{}]
    assert service.calls[0][1].StreamCreationTimestamp == 2**63 - 1
