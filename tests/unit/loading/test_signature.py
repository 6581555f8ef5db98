"""Which form a signature means, and how one that means none is refused: with file, line and fix."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from kflow import Batch, Record, loading, on_stream
from kflow.declarations import HandlerForm
from kflow.errors import UsageError
from kflow.loading.signature import Signature, read_signature

if TYPE_CHECKING:
    from nowhere import KinesisStreamEvent, LambdaContext


@dataclass
class Order:
    id: int


def test_two_positional_parameters_are_the_event_form():
    def h(event, context): ...

    assert read_signature(h) == Signature(HandlerForm.EVENT)


def test_the_event_form_needs_no_annotation_to_exist():
    def h(event: KinesisStreamEvent, context: LambdaContext) -> None: ...

    assert read_signature(h).form is HandlerForm.EVENT


def test_the_event_form_takes_any_names_and_further_parameters_with_defaults():
    def h(e, /, c, table="orders", *, dry: bool = False): ...

    assert read_signature(h).form is HandlerForm.EVENT


def test_a_function_of_any_arguments_is_the_event_form():
    def h(*args, **kwargs): ...

    assert read_signature(h).form is HandlerForm.EVENT


def test_a_record_annotation_is_the_record_form():
    def h(order: Record): ...

    assert read_signature(h) == Signature(HandlerForm.RECORD)


def test_a_batch_annotation_is_the_batch_form():
    def h(batch: Batch): ...

    assert read_signature(h) == Signature(HandlerForm.BATCH)


def test_the_type_in_brackets_is_what_values_are_decoded_to():
    def one(order: Record[Order]): ...
    def many(orders: Batch[list[Order]]): ...

    assert read_signature(one) == Signature(HandlerForm.RECORD, value_type=Order)
    assert read_signature(many) == Signature(HandlerForm.BATCH, value_type=list[Order])


def test_the_type_in_brackets_may_be_quoted(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        """\
import kflow as k

@k.on_stream("orders")
def bill(order: k.Record["Order"]): ...

@k.on_stream("orders")
def ship(order: k.Record["Oder"]): ...

class Order(dict): ...
"""
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    assert str(caught.value) == (
        "app.py:7: ship takes `order: Record[Oder]`, and there is no `Oder` when it runs: "
        "import `Oder` outside `if TYPE_CHECKING`"
    )


def test_an_annotation_may_be_annotated_further():
    def h(order: Annotated[Record[Order], "paid"]): ...

    assert read_signature(h).value_type is Order


def test_a_record_of_a_type_variable_is_not_decoded():
    def h(order: Record[msgspec.Struct | Any]): ...

    assert read_signature(h).value_type == msgspec.Struct | Any


def test_the_context_is_passed_to_the_parameter_of_that_name_only():
    def second(order: Record, context): ...
    def later(order: Record, table="t", context=None): ...
    def keyword(order: Record, *, context): ...
    def none(order: Record, ctx=None): ...

    assert read_signature(second).context == "positional"
    assert read_signature(later).context == "keyword"
    assert read_signature(keyword).context == "keyword"
    assert read_signature(none).context == ""


def test_coroutine_functions_are_async_in_every_form():
    async def event(event, context): ...
    async def record(order: Record): ...
    async def batch(batch: Batch): ...

    assert [read_signature(h).is_async for h in (event, record, batch)] == [True, True, True]


def test_bound_methods_partials_and_callable_objects_are_handlers():
    class Shop:
        def bill(self, order: Record[Order]): ...
        def __call__(self, event, context): ...

    def bill(rate, order: Record[Order]): ...

    assert read_signature(Shop().bill).value_type is Order
    assert read_signature(functools.partial(bill, 0.2)).value_type is Order
    assert read_signature(Shop()).form is HandlerForm.EVENT


def test_a_wrapper_that_keeps_the_signature_keeps_the_form():
    def traced(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @on_stream("orders")
    @traced
    def bill(order: Record[Order]): ...

    assert read_signature(bill) == Signature(HandlerForm.RECORD, value_type=Order)


def test_a_type_known_only_around_the_decorator_is_found():
    @dataclass
    class Local:
        id: int

    @on_stream("orders")
    def bill(order: Record[Local]): ...

    assert read_signature(bill).value_type is Local


def refusal(tmp_path, monkeypatch, code: str) -> str:
    """The error of a module in which `@on_stream("orders")` stands on line 4, and the code from line 5 on."""
    (tmp_path / "app.py").write_text(
        "from __future__ import annotations\nfrom kflow import Batch, Record, on_stream\n\n"
        f'@on_stream("orders")\n{code}\n'
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    return str(caught.value)


HOW = "a handler is `def bill(event, context)`, or takes one `Record`, `Record[T]`, `Batch` or `Batch[T]`"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def bill(): ...", f"app.py:5: bill takes no parameters: {HOW}"),
        ("def bill(*, event, context): ...", f"app.py:5: bill takes no positional parameter: {HOW}"),
        (
            "def bill(event): ...",
            (
                "app.py:5: bill takes only `event`, without a type: write `bill(event, context)` for Lambda's event, "
                "`event: Record` for one record at a time, or `event: Batch` for a batch"
            ),
        ),
        (
            "def bill(order: Order): ...\nclass Order: ...",
            f"app.py:5: bill takes only `order: Order`: did you mean `Record[Order]`? ({HOW})",
        ),
        (
            "def bill(order: dict): ...",
            f"app.py:5: bill takes only `order: dict`: did you mean `Record[dict]`? ({HOW})",
        ),
        (
            "def bill(event, context, table): ...",
            (
                "app.py:5: bill has a parameter `table` that nobody fills: give it a default "
                "(only the event or records, and `context`, are passed)"
            ),
        ),
        (
            "def bill(event, context, *, table): ...",
            (
                "app.py:5: bill has a parameter `table` that nobody fills: give it a default "
                "(only the event or records, and `context`, are passed)"
            ),
        ),
        (
            "def bill(order: Record, table): ...",
            (
                "app.py:5: bill has a parameter `table` that nobody fills: give it a default "
                "(only the event or records, and `context`, are passed)"
            ),
        ),
        (
            "def bill(event, context):\n    yield",
            "app.py:5: bill is a generator, so calling it runs nothing: remove its `yield`",
        ),
        (
            "async def bill(event, context):\n    yield",
            "app.py:5: bill is a generator, so calling it runs nothing: remove its `yield`",
        ),
        (
            "def bill(order: Record[Oder]): ...",
            (
                "app.py:5: bill takes `order: Record[Oder]`, and there is no `Oder` when it runs: "
                "import `Oder` outside `if TYPE_CHECKING`"
            ),
        ),
        (
            "def bill(order: Record[1 / 0]): ...",
            "app.py:5: bill takes `Record[1 / 0]`, which fails: ZeroDivisionError: division by zero",
        ),
        (
            "def bill(order: Record[complex]): ...",
            (
                "app.py:5: bill: JSON cannot be decoded to `complex` (msgspec does not know `complex`): "
                "use a dataclass, a TypedDict, a msgspec.Struct, a Pydantic model or a builtin type"
            ),
        ),
    ],
)
def test_a_signature_of_no_form_is_refused_with_the_line_of_its_def(tmp_path, monkeypatch, code, message):
    assert refusal(tmp_path, monkeypatch, code) == message


def test_a_type_imported_for_type_checkers_alone_is_refused(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        """\
from __future__ import annotations
from typing import TYPE_CHECKING
from kflow import Record, on_stream
if TYPE_CHECKING:
    from models import Order

@on_stream("orders")
def bill(order: Record[Order]) -> None: ...
"""
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    assert str(caught.value) == (
        "app.py:8: bill takes `order: Record[Order]`, and there is no `Order` when it runs: "
        "import `Order` outside `if TYPE_CHECKING`"
    )


def test_record_imported_for_type_checkers_alone_is_refused(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        """\
from __future__ import annotations
from typing import TYPE_CHECKING
from kflow import on_stream
if TYPE_CHECKING:
    import kflow as k

@on_stream("orders")
def bill(order: k.Record[dict], context) -> None: ...
"""
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    assert str(caught.value) == (
        "app.py:8: bill takes `order: k.Record[dict]`, and there is no `k` when it runs: "
        "import `k` outside `if TYPE_CHECKING`"
    )


def test_a_type_defined_below_the_handler_is_found(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        """\
from __future__ import annotations
from dataclasses import dataclass
from kflow import Record, on_stream

@on_stream("orders")
def bill(order: Record[Order]) -> None: ...

@dataclass
class Order:
    lines: list[Line]

@dataclass
class Line:
    sku: str
"""
    )
    monkeypatch.chdir(tmp_path)
    (handler,) = loading.load("app.py").handlers
    assert (handler.form, handler.typed) == (HandlerForm.RECORD, True)


def test_the_record_form_always_reports_the_failed_record(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        """\
from kflow import Record, on_stream

@on_stream("orders", report_batch_item_failures=False)
def bill(order: Record) -> None: ...
"""
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        loading.load("app.py")
    assert str(caught.value) == (
        "app.py:4: bill takes one record at a time, which always reports the one that failed: "
        "remove report_batch_item_failures=False, or take a `Batch`"
    )


def test_the_record_form_implies_partial_batch_responses_and_the_others_do_not():
    @on_stream("orders")
    def record(order: Record): ...

    @on_stream("orders")
    def batch(orders: Batch): ...

    reports = [mark.trigger.options.report_batch_item_failures for h in (record, batch) for mark in h.__kflow__]
    assert reports == [True, False]
