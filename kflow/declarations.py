"""What a decorator leaves behind: plain data, and how it is found again.

A decorator attaches a tuple of `Declared` to the function under `ATTRIBUTE`; nothing is registered anywhere, so that
loading a module again and collecting again is all that a reload needs. `Handler` is data alone (no function object in
it): it crosses processes, and the worker that runs it imports the function by `Handler.file` and `Handler.qualname`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

ATTRIBUTE = "__kflow__"


class StartingPosition(enum.StrEnum):
    """Where a consumer without a checkpoint begins. Source: documented: CreateEventSourceMapping."""

    LATEST = "LATEST"
    TRIM_HORIZON = "TRIM_HORIZON"
    AT_TIMESTAMP = "AT_TIMESTAMP"


class HandlerForm(enum.StrEnum):
    """How a handler wants to be called."""

    EVENT = "event"
    BATCH = "batch"
    RECORD = "record"
    MESSAGES = "messages"
    MESSAGE = "message"

    @property
    def is_of_queues(self) -> bool:
        """Whether it takes what queues hold; the event form takes all there is."""
        return self in (HandlerForm.MESSAGES, HandlerForm.MESSAGE)

    @property
    def is_of_streams(self) -> bool:
        """Whether it takes what streams hold."""
        return self in (HandlerForm.BATCH, HandlerForm.RECORD)


class MappingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an event source mapping for a stream, with AWS's defaults and units.

    Attributes:
        filters: patterns in the EventBridge grammar, as JSON text; a record passes where any of them matches.
        on_failure: where spent records go instead of the parked store; `drop` for nowhere.

    Source: documented: AWS Lambda API Reference, CreateEventSourceMapping.
    """

    batch_size: int = 100
    maximum_batching_window_in_seconds: int = 0
    starting_position: StartingPosition = StartingPosition.TRIM_HORIZON
    starting_position_ms: int | None = None
    maximum_retry_attempts: int = -1
    maximum_record_age_in_seconds: int = -1
    bisect_batch_on_function_error: bool = False
    report_batch_item_failures: bool = False
    parallelization_factor: int = 1
    tumbling_window_in_seconds: int = 0
    filters: tuple[str, ...] = ()
    on_failure: str | None = None


class StreamTrigger(msgspec.Struct, frozen=True, kw_only=True):
    """One `@on_stream`: the stream's logical name or ARN, the options, and the line it stands on.

    Attributes:
        consumer: name of the registered consumer that it reads as; None for none.
        uuid: of a mapping that the API made; empty: it is declared, and follows from its names.
        counts: whether its events are counted, for the metrics of its mapping.
    """

    stream: str
    options: MappingOptions
    enabled: bool = True
    file: str = ""
    line: int = 0
    consumer: str | None = None
    uuid: str = ""
    counts: bool = False


class QueueOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an event source mapping for a queue, with AWS's defaults and units.

    Attributes:
        filters: patterns in the EventBridge grammar, as JSON text; a message passes where any of them matches.
        maximum_concurrency: batches that run at once, 2 to 1,000; None leaves it to the runtime.

    Source: documented: AWS Lambda API Reference, CreateEventSourceMapping.
    """

    batch_size: int = 10
    maximum_batching_window_in_seconds: int = 0
    report_batch_item_failures: bool = False
    filters: tuple[str, ...] = ()
    maximum_concurrency: int | None = None


class QueueTrigger(msgspec.Struct, frozen=True, kw_only=True):
    """One `@on_queue`: the queue's logical name or ARN, the options, and the line it stands on."""

    queue: str
    options: QueueOptions
    enabled: bool = True
    file: str = ""
    line: int = 0


class FunctionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the function; None leaves the choice to the settings, then to AWS's default.

    Attributes:
        timeout: seconds, 1 to 900.
        memory_size: megabytes, 128 to 10,240.
        environment: variables the handler sees.
    """

    function_name: str | None = None
    timeout: int | None = None
    memory_size: int | None = None
    environment: dict[str, str] | None = None


class Declared(msgspec.Struct, frozen=True):
    """What one decorator attached to a function."""

    trigger: StreamTrigger | QueueTrigger
    function_options: FunctionOptions


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a function that no file of the project declares: it runs in a runtime process of its own.

    Attributes:
        function: its name, without a qualifier.
        version: `$LATEST`, or a number as text.
        runtime: AWS's identifier, for example `python3.12`, `nodejs22.x`, `provided.al2023`.
        entry: what Lambda calls the handler, for example `app.handler`.
        code: folder that it is unpacked in.
        layers: folders of its layers, in their order: each is a `/opt`.
        account: twelve digits.
        region: for example `us-east-1`.
        log_format: `Text` or `JSON`.
        log_level: of the application; empty: the runtime's own choice.
        system_log_level: of Lambda's own lines, in a JSON log: `DEBUG`, `INFO` or `WARN`; empty: `INFO`.
        log_group: that it logs to; empty: the one that is named after it.
        role: ARN of its execution role; empty: one of its own name.
    """

    function: str
    version: str
    runtime: str
    entry: str
    code: str
    layers: tuple[str, ...] = ()
    account: str = ""
    region: str = ""
    log_format: str = "Text"
    log_level: str = ""
    system_log_level: str = ""
    log_group: str = ""
    role: str = ""


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """One function with its triggers, as data.

    Attributes:
        name: the function's name on Lambda: `function_name`, else the Python name.
        file: absolute path of the source file.
        line: first line of the function.
        root: the folder that is its import root, as `/var/task` is.
        module: the name it is imported under.
        qualname: the attribute to take from the module.
        form: how it is called.
        typed: whether its annotation names a type to decode to.
        is_async: whether it is a coroutine function.
        triggers: streams that it reads.
        queues: queues whose messages it takes.
        options: function options, the same for all triggers.
        package: its code, where that is no file of the project; `file`, `root`, `module` and `qualname` are empty then.
    """

    name: str
    file: str
    line: int
    root: str
    module: str
    qualname: str
    form: HandlerForm
    typed: bool = False
    is_async: bool = False
    triggers: tuple[StreamTrigger, ...] = ()
    queues: tuple[QueueTrigger, ...] = ()
    options: FunctionOptions = FunctionOptions()
    package: Package | None = None

    @property
    def place(self) -> str:
        """`file:line`, for messages."""
        return f"{self.file}:{self.line}"


def sourceless(
    name: str,
    package: Package | None,
    *,
    triggers: tuple[StreamTrigger, ...] = (),
    options: FunctionOptions | None = None,
) -> Handler:
    """A function that no file of the project holds: its code is a package; without one there is none to run."""
    return Handler(
        name=name,
        file="",
        line=0,
        root="",
        module="",
        qualname="",
        form=HandlerForm.EVENT,
        triggers=triggers,
        options=options or FunctionOptions(),
        package=package,
    )


def declared(function: Callable[..., Any]) -> tuple[Declared, ...]:
    """What decorators attached to `function`, first the one nearest to it."""
    found: object = getattr(function, ATTRIBUTE, ())
    # Objects that answer to any attribute (proxies) answer to ours too.
    return found if isinstance(found, tuple) else ()
