"""What an event source mapping may be: the options that a call asks for, checked, in AWS's words.

Source: documented: CreateEventSourceMapping; recorded: the texts, but those marked chosen.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec.structs import replace

from kflow.declarations import MappingOptions, QueueOptions, StartingPosition
from kflow.errors import UsageError
from kflow.events.patterns import PatternError, compile_filters
from kflow.events.queue_patterns import compile_message_filters
from kflow.lambda_ import destinations
from kflow.lambda_.control.mappingfacts import Mapping
from kflow.lambda_.errors import InvalidParameterValue
from kflow.limits import FILTERS, QUEUE_BATCH

_SOURCE: Final = re.compile(
    r"arn:aws[-a-z0-9]*:(?:"
    r"kinesis:[-a-z0-9]+:\d{12}:stream/[a-zA-Z0-9_.-]{1,128}(?:/consumer/[a-zA-Z0-9_.-]{1,128}:\d+)?"
    r"|sqs:[-a-z0-9]+:\d{12}:[a-zA-Z0-9_-]{1,80}(?:\.fifo)?)"
)
_LIKELY: Final = re.compile(r"arn:[^:]*:(dynamodb|kafka|mq|rds|docdb-elastic):")
_NEITHER: Final = (
    "ProvisionedPollerConfig",
    "Topics",
    "Queues",
    "SourceAccessConfigurations",
    "AmazonManagedKafkaEventSourceConfig",
    "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig",
    "LoggingConfig",
)
_STREAMS_ONLY: Final = (
    "StartingPosition",
    "StartingPositionTimestamp",
    "ParallelizationFactor",
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "MaximumRetryAttempts",
    "TumblingWindowInSeconds",
    "DestinationConfig",
)
_POSITION: Final = (
    "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
    "Member must not be null."
)
_FILTER: Final = "Invalid filter pattern definition."


def source(given: Any) -> str:
    """The event source that a call names.

    Raises:
        InvalidParameterValue: none, or one that nobody reads here.
    """
    text: str | None = given.EventSourceArn
    if text is None and given.SelfManagedEventSource is not None:
        raise InvalidParameterValue(
            "SelfManagedEventSource is not supported here: kflow reads Kinesis streams and SQS queues."  # chosen
        )
    if text is not None and (likely := _LIKELY.match(text)):
        raise InvalidParameterValue(  # chosen
            f"Event sources of {likely[1]} are not supported here: kflow reads Kinesis streams and SQS queues."
        )
    if text is None or not _SOURCE.fullmatch(text):
        raise InvalidParameterValue("Unrecognized event source.")
    return text


def stream_options(given: Any, before: MappingOptions | None, now_ms: int) -> MappingOptions:
    """The options of a stream's mapping.

    Args:
        given: input of a create or an update.
        before: what an update changes; None: it is a create.
        now_ms: milliseconds since the epoch.

    Raises:
        InvalidParameterValue: they cannot be had.
    """
    _refuse(given, (*_NEITHER, "ScalingConfig"))
    options = _position(given, now_ms) if before is None else before
    wanted = {
        "batch_size": given.BatchSize,
        "maximum_batching_window_in_seconds": given.MaximumBatchingWindowInSeconds,
        "maximum_retry_attempts": given.MaximumRetryAttempts,
        "maximum_record_age_in_seconds": given.MaximumRecordAgeInSeconds,
        "bisect_batch_on_function_error": given.BisectBatchOnFunctionError,
        "report_batch_item_failures": _reports(given),
        "parallelization_factor": given.ParallelizationFactor,
        "tumbling_window_in_seconds": given.TumblingWindowInSeconds,
    }
    options = replace(options, **{name: value for name, value in wanted.items() if value is not None})
    if 0 <= options.maximum_record_age_in_seconds < 60:
        raise InvalidParameterValue(
            "Maximum record age in seconds must be -1, or between 60 and 604800 (inclusive)."  # chosen
        )
    if options.tumbling_window_in_seconds and options.parallelization_factor > 1:
        raise InvalidParameterValue(
            "A tumbling window needs a parallelization factor of 1: its state is kept per shard."  # chosen
        )
    if given.FilterCriteria is not None:
        options = replace(options, filters=_filters(given.FilterCriteria, compile_filters))
    if given.DestinationConfig is not None:
        options = replace(options, on_failure=_destination(given.DestinationConfig))
    return options


def queue_options(given: Any, before: QueueOptions | None, queue: str) -> QueueOptions:
    """The options of a queue's mapping.

    Args:
        given: input of a create or an update.
        before: what an update changes; None: it is a create.
        queue: its ARN.

    Raises:
        InvalidParameterValue: they cannot be had.
    """
    _refuse(given, (*_NEITHER, *_STREAMS_ONLY))
    wanted = {
        "batch_size": given.BatchSize,
        "maximum_batching_window_in_seconds": given.MaximumBatchingWindowInSeconds,
        "report_batch_item_failures": _reports(given),
    }
    options = replace(before or QueueOptions(), **{name: each for name, each in wanted.items() if each is not None})
    if given.ScalingConfig is not None:
        options = replace(options, maximum_concurrency=given.ScalingConfig.MaximumConcurrency)
    if given.FilterCriteria is not None:
        options = replace(options, filters=_filters(given.FilterCriteria, compile_message_filters))
    if queue.endswith(".fifo"):
        if options.batch_size > QUEUE_BATCH:
            raise InvalidParameterValue(
                f"Maximum batch size of a FIFO queue is {QUEUE_BATCH}, not {options.batch_size}."  # chosen
            )
        if options.maximum_batching_window_in_seconds:
            raise InvalidParameterValue("Batching window is not supported for FIFO queues")
    elif options.batch_size > QUEUE_BATCH and not options.maximum_batching_window_in_seconds:
        raise InvalidParameterValue(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
    return options


def metrics(given: Any, before: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Which metrics are wanted. Of streams and queues there are none of errors: that group is taken, and has nothing.

    Source: documented: event source mapping metrics.
    """
    if given.MetricsConfig is None:
        return before
    found = tuple(given.MetricsConfig.Metrics or ())
    if "KafkaMetrics" in found:
        raise InvalidParameterValue("KafkaMetrics are of Kafka event sources only.")  # chosen
    return found or None


def reports(mapping: Mapping) -> bool:
    """Whether a response may name what failed."""
    options = mapping.queue_options if mapping.is_queue else mapping.options
    return options.report_batch_item_failures


def warnings(mapping: Mapping) -> tuple[str, ...]:
    """What of its filters works here and may not on AWS."""
    if mapping.is_queue:
        return compile_message_filters(mapping.queue_options.filters).warnings
    return compile_filters(mapping.options.filters).warnings if mapping.options.filters else ()


def _refuse(given: Any, unsupported: tuple[str, ...]) -> None:
    for name in unsupported:
        if getattr(given, name, None) not in (None, [], ()):
            raise InvalidParameterValue(f"Unsupported {name} parameter for given event source mapping type.")  # chosen


def _reports(given: Any) -> bool | None:
    types = given.FunctionResponseTypes
    return None if types is None else "ReportBatchItemFailures" in types


def _position(given: Any, now_ms: int) -> MappingOptions:
    if given.StartingPosition is None:
        raise InvalidParameterValue(_POSITION)
    position = StartingPosition(given.StartingPosition)
    at_ms: int | None = given.StartingPositionTimestamp
    if position is StartingPosition.AT_TIMESTAMP:
        if at_ms is None:
            raise InvalidParameterValue("StartingPositionTimestamp is required when StartingPosition is AT_TIMESTAMP.")
        if at_ms > now_ms:
            raise InvalidParameterValue("StartingPositionTimestamp must not be in the future.")
    elif at_ms is not None:
        raise InvalidParameterValue("StartingPositionTimestamp is valid only when StartingPosition is AT_TIMESTAMP.")
    return MappingOptions(starting_position=position, starting_position_ms=at_ms)  # chosen: the three texts above


def _filters(given: Any, compile_: Any) -> tuple[str, ...]:
    patterns = tuple(each.Pattern or "" for each in given.Filters or ())
    if len(patterns) > FILTERS:
        raise InvalidParameterValue(
            f"Maximum number of filters is {FILTERS}, and {len(patterns)} were given."
        )  # chosen
    try:
        compile_(patterns)
    except PatternError as error:
        raise InvalidParameterValue(_FILTER) from error
    return patterns


def _destination(given: Any) -> str | None:
    if given.OnSuccess is not None and given.OnSuccess.Destination is not None:
        raise InvalidParameterValue("Unsupported DestinationConfig parameter for given event source mapping type.")
    target: str | None = None if given.OnFailure is None else given.OnFailure.Destination
    if not target:
        return None
    try:
        found = destinations.parse(target)
        if found.is_logical:
            raise UsageError(f"{target} is not an ARN")
    except UsageError as error:
        raise InvalidParameterValue(f"The destination is not valid: {error}") from error  # chosen
    return target
