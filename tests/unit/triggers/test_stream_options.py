"""What `@on_stream` takes, and how it refuses the rest: always with the line of the decorator and the fix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kflow import Batch, Record, loading, on_stream
from kflow.declarations import FunctionOptions, MappingOptions, StartingPosition, declared
from kflow.errors import UsageError


def refusal(tmp_path, monkeypatch, decorator: str, head: str = "") -> str:
    """The error of a module whose line 3 is the decorator."""
    (tmp_path / "app.py").write_text(
        f"from kflow import on_stream\n{head}\n{decorator}\ndef bill(event, context):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    return str(caught.value)


def test_the_defaults_are_those_of_aws():
    @on_stream("orders")
    def bill(event, context):
        pass

    (mark,) = declared(bill)
    assert mark.trigger.stream == "orders"
    assert mark.trigger.enabled is True
    assert mark.trigger.options == MappingOptions(
        batch_size=100,
        maximum_batching_window_in_seconds=0,
        starting_position=StartingPosition.TRIM_HORIZON,
        starting_position_ms=None,
        maximum_retry_attempts=-1,
        maximum_record_age_in_seconds=-1,
        bisect_batch_on_function_error=False,
        report_batch_item_failures=False,
    )
    assert mark.function_options == FunctionOptions()


def test_every_option_arrives_in_the_declaration():
    @on_stream(
        "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        batch_size=10_000,
        maximum_batching_window_in_seconds=300,
        starting_position=datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
        maximum_retry_attempts=10_000,
        maximum_record_age_in_seconds=604_800,
        bisect_batch_on_function_error=True,
        report_batch_item_failures=True,
        enabled=False,
        function_name="Bill-2",
        timeout=900,
        memory_size=10_240,
        environment={"MODE": "test"},
        parallelization_factor=10,
        filters=[{"data": {"type": ["good"]}}, '{ "partitionKey": ["a"] }'],
        on_failure="drop",
    )
    def bill(event, context):
        pass

    (mark,) = declared(bill)
    assert mark.trigger.stream == "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
    assert mark.trigger.enabled is False
    assert mark.trigger.options == MappingOptions(
        batch_size=10_000,
        maximum_batching_window_in_seconds=300,
        starting_position=StartingPosition.AT_TIMESTAMP,
        starting_position_ms=1_704_164_645_678,
        maximum_retry_attempts=10_000,
        maximum_record_age_in_seconds=604_800,
        bisect_batch_on_function_error=True,
        report_batch_item_failures=True,
        parallelization_factor=10,
        filters=('{"data":{"type":["good"]}}', '{ "partitionKey": ["a"] }'),
        on_failure="drop",
    )
    assert mark.function_options == FunctionOptions(
        function_name="Bill-2", timeout=900, memory_size=10_240, environment={"MODE": "test"}
    )


CONSUMER = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders/consumer/fast:1700000000"


@pytest.mark.parametrize(
    ("stream", "consumer"),
    [
        ("orders", "fast"),
        ("orders", CONSUMER),
        ("arn:aws:kinesis:eu-west-1:123456789012:stream/orders", "fast"),
        (CONSUMER, None),
        (CONSUMER, "fast"),
        (CONSUMER, CONSUMER),
    ],
)
def test_a_registered_consumer_is_named_by_its_name_or_its_arn(stream, consumer):
    @on_stream(stream, consumer=consumer)
    def bill(event, context):
        pass

    (mark,) = declared(bill)
    assert mark.trigger.stream == stream
    assert mark.trigger.consumer == "fast"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'orders', consumer=7", "consumer must be a consumer's name or ARN, not 7"),
        (
            "'orders', consumer='my fast one'",
            (
                "a consumer's name is 1 to 128 of the letters a-z and A-Z, digits, _, . and -, not 'my fast one'; "
                "its ARN is arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/NAME:SECONDS"
            ),
        ),
        (
            f"'clicks', consumer='{CONSUMER}'",
            f"consumer '{CONSUMER}' is of the stream orders, not of clicks",
        ),
        (
            f"'{CONSUMER}', consumer='slow'",
            "the ARN is of the consumer fast, consumer='slow' is another: say it once",
        ),
    ],
)
def test_a_wrong_consumer_is_refused(tmp_path, monkeypatch, arguments, message):
    assert refusal(tmp_path, monkeypatch, f"@on_stream({arguments})") == f"app.py:3: {message}"


def test_a_tumbling_window_arrives_in_the_declaration():
    @on_stream("orders", tumbling_window_in_seconds=900)
    def bill(batch: Batch):
        pass

    (mark,) = declared(bill)
    assert mark.trigger.options == MappingOptions(tumbling_window_in_seconds=900)


def test_a_tumbling_window_needs_a_form_that_has_a_state():
    with pytest.raises(UsageError, match="bill takes one record at a time, and has no state to return"):

        @on_stream("orders", tumbling_window_in_seconds=60)
        def bill(record: Record):
            pass


def test_the_decorated_function_is_the_same_function():
    def bill(event, context):
        return event["n"] + 1

    decorated = on_stream("orders")(bill)
    assert decorated is bill
    assert decorated({"n": 1}, None) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("batch_size=0", "batch_size must be a whole number from 1 to 10000, not 0"),
        ("batch_size=10_001", "batch_size must be a whole number from 1 to 10000, not 10001"),
        ("batch_size='10'", "batch_size must be a whole number from 1 to 10000, not '10'"),
        ("batch_size=True", "batch_size must be a whole number from 1 to 10000, not True"),
        (
            "maximum_batching_window_in_seconds=301",
            "maximum_batching_window_in_seconds must be a whole number from 0 to 300, not 301",
        ),
        (
            "maximum_batching_window_in_seconds=0.5",
            "maximum_batching_window_in_seconds must be a whole number from 0 to 300, not 0.5",
        ),
        (
            "maximum_retry_attempts=-2",
            "maximum_retry_attempts must be -1 or a whole number from 0 to 10000, not -2",
        ),
        (
            "maximum_record_age_in_seconds=59",
            "maximum_record_age_in_seconds must be -1 or a whole number from 60 to 604800, not 59",
        ),
        (
            "bisect_batch_on_function_error=1",
            "bisect_batch_on_function_error must be True or False, not 1",
        ),
        ("report_batch_item_failures='yes'", "report_batch_item_failures must be True or False, not 'yes'"),
        ("enabled=None", "enabled must be True or False, not None"),
        ("parallelization_factor=0", "parallelization_factor must be a whole number from 1 to 10, not 0"),
        ("parallelization_factor=11", "parallelization_factor must be a whole number from 1 to 10, not 11"),
        ("tumbling_window_in_seconds=901", "tumbling_window_in_seconds must be a whole number from 0 to 900, not 901"),
        (
            "tumbling_window_in_seconds=60, parallelization_factor=2",
            (
                "tumbling_window_in_seconds needs parallelization_factor=1: the state of a window is kept per shard, "
                "and lanes would each have their own"
            ),
        ),
        (
            "on_failure='park'",
            """on_failure: 'park' is no destination: "sqs:NAME", "sns:NAME", "s3:BUCKET", or an ARN""",
        ),
        (
            "on_failure=True",
            'on_failure must be None, "drop", "sqs:NAME", "sns:NAME", "s3:BUCKET" or an ARN, not True',
        ),
        (
            "on_failure='sqs:dead.fifo'",
            (
                "on_failure: sqs:dead.fifo: a FIFO queue cannot be the destination of a stream's mapping: "
                "name a standard queue"
            ),
        ),
        (
            "on_failure='arn:aws:sns:us-east-1:123456789012:alerts.fifo'",
            (
                "on_failure: arn:aws:sns:us-east-1:123456789012:alerts.fifo: a FIFO topic cannot be the destination of "
                "a stream's mapping: name a standard topic"
            ),
        ),
        (
            "on_failure='s3:Graves'",
            (
                "on_failure: s3:Graves: a bucket's name is 3 to 63 small letters, digits, - and ., and begins and ends "
                "with a letter or a digit"
            ),
        ),
        (
            "on_failure='arn:aws:lambda:us-east-1:123456789012:function:f'",
            (
                "on_failure: arn:aws:lambda:us-east-1:123456789012:function:f: failure documents of a stream's mapping "
                "go to a queue (sqs), a topic (sns) or a bucket (s3)"
            ),
        ),
        (
            "filters={'data': {}}",
            "filters must be a list of patterns, each a dict or JSON text, not {'data': {}}",
        ),
        ("filters='{}'", "filters must be a list of patterns, each a dict or JSON text, not '{}'"),
        ("filters=[7]", "filters: a pattern is a dict or JSON text, not 7"),
        (
            "filters=[{'data': {'n': [float('nan')]}}]",
            (
                "filters: {'data': {'n': [nan]}} cannot be written as JSON: "
                "Out of range float values are not JSON compliant"
            ),
        ),
        (
            "filters=[{'data': {'n': [b'x']}}]",
            (
                "filters: {'data': {'n': [b'x']}} cannot be written as JSON: "
                "Object of type bytes is not JSON serializable"
            ),
        ),
        (
            "filters=[{'data': {'n': {1}}}]",
            "filters: {'data': {'n': {1}}} cannot be written as JSON: Object of type set is not JSON serializable",
        ),
        (
            "filters=[{'data': {'n': [__import__('decimal').Decimal(1)]}}]",
            (
                "filters: {'data': {'n': [Decimal('1')]}} cannot be written as JSON: "
                "Object of type Decimal is not JSON serializable"
            ),
        ),
        ("filters=['{']", "filters[0]: line 1, column 2: not JSON: Expecting property name enclosed in double quotes"),
        ("filters=[{'data': {'a': 'x'}}]", 'filters[0]: data.a: must be an object or an array, not "x": write ["x"]'),
        ("filters=[{'data': {'a': ['x']}}] * 11", "11 filters: AWS takes 5, and 10 at most"),
        ("filters=[{'data': {'a': ['x' * 5000]}}]", "filters[0]: has 5019 characters, AWS takes 4096"),
        ("tumbling_window_in_seconds=-1", "tumbling_window_in_seconds must be a whole number from 0 to 900, not -1"),
        ("filters=None", "filters must be a list of patterns, each a dict or JSON text, not None"),
        ("timeout=0", "timeout must be a whole number from 1 to 900, not 0"),
        ("timeout=901", "timeout must be a whole number from 1 to 900, not 901"),
        ("memory_size=64", "memory_size must be a whole number from 128 to 10240, not 64"),
        (
            "starting_position='AT_TIMESTAMP'",
            (
                'starting_position must be "TRIM_HORIZON", "LATEST" or an aware datetime: '
                "for AT_TIMESTAMP give the datetime itself"
            ),
        ),
        (
            "starting_position='EARLIEST'",
            'starting_position must be "TRIM_HORIZON", "LATEST" or an aware datetime, not \'EARLIEST\'',
        ),
        (
            "function_name='my function'",
            "function_name must be 1 to 64 of the letters a-z and A-Z, digits, - and _, not 'my function'",
        ),
        ("environment=['A']", "environment must be a dict of names to text, not ['A']"),
        ("environment={'SIZE': 3}", "environment must be a dict of names to text, not 'SIZE': 3"),
        (
            "environment={'1A': ''}",
            "environment: '1A' must start with a letter and have at least two letters, digits or _",
        ),
        (
            "environment={'AWS_REGION': 'x'}",
            "environment: AWS_REGION is reserved, Lambda sets it itself: remove it",
        ),
        (
            "environment={'BIG': 'x' * 5000}",
            "environment has 5003 bytes, Lambda takes 4096",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_range(tmp_path, monkeypatch, arguments, message):
    assert refusal(tmp_path, monkeypatch, f'@on_stream("orders", {arguments})') == f"app.py:3: {message}"


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("batchsize", "did you mean batch_size?"),
        ("batch_siez", "did you mean batch_size?"),
        ("retries", "did you mean maximum_retry_attempts?"),
        ("window", "did you mean tumbling_window_in_seconds?"),
        ("bisect", "did you mean bisect_batch_on_function_error?"),
        ("memory", "did you mean memory_size?"),
        ("filter", "did you mean filters?"),
        ("BatchSize", "did you mean batch_size?"),
        ("maximum_retries", "did you mean maximum_retry_attempts?"),
        (
            "zzz",
            (
                "it has batch_size, bisect_batch_on_function_error, consumer, enabled, environment, filters, "
                "function_name, maximum_batching_window_in_seconds, maximum_record_age_in_seconds, "
                "maximum_retry_attempts, memory_size, on_failure, parallelization_factor, "
                "report_batch_item_failures, starting_position, timeout, "
                "tumbling_window_in_seconds"
            ),
        ),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(tmp_path, monkeypatch, option, hint):
    assert (
        refusal(tmp_path, monkeypatch, f'@on_stream("orders", {option}=1)')
        == f"app.py:3: @on_stream has no option {option}: {hint}"
    )


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            "'my orders'",
            "a stream's name is 1 to 128 of the letters a-z and A-Z, digits, _, . and -, not 'my orders'",
        ),
        ("''", "a stream's name is 1 to 128 of the letters a-z and A-Z, digits, _, . and -, not ''"),
        ("7", "the stream must be a name or an ARN, not 7"),
        (
            "'arn:aws:sqs:us-east-1:123456789012:orders'",
            (
                "'arn:aws:sqs:us-east-1:123456789012:orders' is not the ARN of a Kinesis stream: "
                "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, or the name alone"
            ),
        ),
        (
            "'arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/fast'",
            (
                "'arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/fast' is not the ARN of a Kinesis "
                "stream: arn:aws:kinesis:REGION:ACCOUNT:stream/NAME, or the name alone"
            ),
        ),
    ],
)
def test_what_is_no_stream_is_refused(tmp_path, monkeypatch, stream, message):
    assert refusal(tmp_path, monkeypatch, f"@on_stream({stream})") == f"app.py:3: {message}"


def test_a_decorator_without_parentheses_is_explained(tmp_path, monkeypatch):
    assert refusal(tmp_path, monkeypatch, "@on_stream") == (
        'app.py:3: @on_stream needs the name of a stream: @on_stream("orders")'
    )


def test_a_class_is_no_handler():
    with pytest.raises(UsageError, match="@on_stream decorates a function, not <class 'int'>"):
        on_stream("orders")(int)


def test_what_takes_no_attributes_is_refused():
    with pytest.raises(UsageError, match=r"<built-in function .*> takes no attributes, so @on_stream cannot mark it"):
        on_stream("orders")(divmod)


def test_a_starting_position_without_a_time_zone_is_refused(tmp_path, monkeypatch):
    message = refusal(
        tmp_path,
        monkeypatch,
        '@on_stream("orders", starting_position=datetime(2024, 1, 1))',
        head="from datetime import datetime",
    )
    assert message == (
        'app.py:3: starting_position must be "TRIM_HORIZON", "LATEST" or an aware datetime: '
        "this one has no time zone, add tzinfo=datetime.UTC"
    )


def test_a_starting_position_in_the_future_is_refused():
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(UsageError) as caught:
        on_stream("orders", starting_position=tomorrow)
    assert str(caught.value).endswith(f": starting_position must not be in the future, as {tomorrow.isoformat()} is")


def test_triggers_stack_and_the_nearest_comes_first():
    @on_stream("b", timeout=5)
    @on_stream("a", memory_size=256)
    def bill(event, context):
        pass

    assert [mark.trigger.stream for mark in declared(bill)] == ["a", "b"]


def test_function_options_that_differ_name_both_lines(tmp_path, monkeypatch):
    message = refusal(tmp_path, monkeypatch, '@on_stream("b", timeout=5)\n@on_stream("a", timeout=3)', head="")
    assert message == (
        "app.py:3: timeout=5, but timeout=3 at app.py:4: bill is one function and has one timeout, say it once"
    )


def test_a_second_declaration_of_the_same_stream_names_both_lines(tmp_path, monkeypatch):
    message = refusal(
        tmp_path,
        monkeypatch,
        '@on_stream("orders")\n@on_stream("arn:aws:kinesis:us-east-1:123456789012:stream/orders")',
    )
    assert message == (
        "app.py:3: bill consumes orders already, by the decorator at app.py:4: remove one of them "
        "(a function has one checkpoint a stream)"
    )


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{'data': {'type': 'good'}}", "type"),
        ("'null'", "filters[0]"),
        ("'{'", "filters[0]"),
        ("{'data': {'type': []}}", "type"),
        ("{'data': ['text']}", "data"),
        ("{'data': {'n': [{'NUMERIC': ['=', 1]}]}}", "NUMERIC"),
    ],
)
def test_an_invalid_filter_is_refused_with_its_line_and_its_place(tmp_path, monkeypatch, pattern, says):
    message = refusal(tmp_path, monkeypatch, f'@on_stream("orders", filters=[{pattern}])')
    assert message.startswith("app.py:3: filters[0]")
    assert says in message


def test_a_filter_that_is_no_json_is_refused(tmp_path, monkeypatch):
    message = refusal(tmp_path, monkeypatch, '@on_stream("orders", filters=[{"data": {"a": [object()]}}])')
    assert message.startswith("app.py:3: filters: ")
    assert "cannot be written as JSON" in message
