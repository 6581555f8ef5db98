"""From a PATH to handlers: what is searched, what is imported, what is refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kflow import loading
from kflow.declarations import HandlerForm
from kflow.errors import UsageError
from kflow.lambda_ import forms

HANDLER = """\
from kflow import on_stream

@on_stream("orders")
def {name}(event, context):
    return None
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """An empty project: the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, code: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(code))


def names(*paths: str) -> list[str]:
    return [handler.name for handler in loading.load(*paths).handlers]


def refusal(*paths: str) -> str:
    with pytest.raises(UsageError) as caught:
        loading.load(*paths)
    return str(caught.value)


def test_a_handler_is_described_by_data_alone(project):
    write("functions/shop/app.py", HANDLER.format(name="bill"))
    (handler,) = loading.load("functions").handlers
    folder = str(project / "functions" / "shop")
    assert (handler.name, handler.qualname, handler.module) == ("bill", "bill", "app")
    assert (handler.file, handler.line, handler.root) == (f"{folder}/app.py", 4, folder)
    assert (handler.form, handler.typed, handler.is_async) == (HandlerForm.EVENT, False, False)
    assert [(trigger.stream, trigger.line) for trigger in handler.triggers] == [("orders", 3)]


def test_a_path_is_a_file_a_folder_or_a_module(project):
    write("functions/app.py", HANDLER.format(name="bill"))
    write("shop/__init__.py", "")
    write("shop/handlers.py", HANDLER.format(name="ship"))
    assert names("functions/app.py") == ["bill"]
    assert names("functions") == ["bill"]
    assert names("functions/") == ["bill"]
    assert names("functions.app") == ["bill"]
    assert names("shop.handlers") == ["ship"]
    assert names("shop") == ["ship"]
    assert names("functions", "shop.handlers", "functions/app.py") == ["bill", "ship"]


def test_two_app_py_coexist_each_with_its_own_neighbours(project):
    for folder, price in (("a", 1), ("b", 2)):
        write(f"functions/{folder}/prices.py", f"PRICE = {price}")
        write(
            f"functions/{folder}/app.py",
            f"""\
            from kflow import on_stream
            import prices

            @on_stream("orders", batch_size=prices.PRICE)
            def handle_{folder}(event, context): ...
            """,
        )
    handlers = loading.load("functions").handlers
    assert [(h.name, h.triggers[0].options.batch_size) for h in handlers] == [("handle_a", 1), ("handle_b", 2)]


def test_loading_leaves_path_and_modules_as_they_were(project):
    write("functions/neighbour.py", "")
    write("functions/app.py", "import neighbour\n" + HANDLER.format(name="bill"))
    path, modules = list(sys.path), {"app", "neighbour"} & set(sys.modules)
    loading.load("functions")
    assert sys.path == path
    assert {"app", "neighbour"} & set(sys.modules) == modules == set()


def test_a_module_in_a_package_may_import_relatively(project):
    write("shop/__init__.py", "")
    write("shop/prices.py", "PRICE = 7")
    write("shop/app.py", "from .prices import PRICE\nimport prices\n" + HANDLER.format(name="bill"))
    (handler,) = loading.load("shop").handlers
    assert (handler.module, handler.root) == ("shop.app", str(project))


def test_only_files_that_use_a_decorator_are_imported(project):
    write("functions/app.py", HANDLER.format(name="bill"))
    write("functions/script.py", "raise SystemExit('imported')")
    write("functions/mentions.py", "# kflow\nimport kflow\nraise SystemExit('imported')")
    write("functions/broken.py", "this is not python")
    assert names("functions") == ["bill"]


@pytest.mark.parametrize(
    "place",
    [
        "tests/app.py",
        "test_app.py",
        "app_test.py",
        "conftest.py",
        ".hidden/app.py",
        ".app.py",
        "env/lib/app.py",
        "node_modules/app.py",
        "__pycache__/app.py",
    ],
)
def test_tests_hidden_folders_and_virtual_environments_are_not_searched(project, place):
    write("functions/app.py", HANDLER.format(name="bill"))
    write("functions/env/pyvenv.cfg", "")
    write(f"functions/{place}", HANDLER.format(name="never"))
    assert names("functions") == ["bill"]


@pytest.mark.parametrize(
    "code",
    [
        "import kflow\n@kflow.on_stream('orders')\ndef bill(event, context): ...\n",
        "import kflow as k\n@k.on_stream('orders')\ndef bill(event, context): ...\n",
        "from kflow import on_stream as consume\n@consume('orders')\ndef bill(event, context): ...\n",
        "from kflow.triggers.stream import on_stream\n@on_stream('orders')\ndef bill(event, context): ...\n",
        "from kflow.triggers import stream\n@stream.on_stream('orders')\ndef bill(event, context): ...\n",
        "from kflow import *\n@on_stream('orders')\ndef bill(event, context): ...\n",
        "from kflow import on_stream\ndef bill(event, context): ...\non_stream('orders')(bill)\n",
    ],
)
def test_a_decorator_is_recognised_however_it_was_imported(project, code):
    write("functions/app.py", code)
    assert names("functions") == ["bill"]


def test_a_handler_imported_by_another_module_belongs_to_its_own(project):
    write("functions/app.py", HANDLER.format(name="bill"))
    write("functions/other.py", "from app import bill\n" + HANDLER.format(name="ship"))
    assert sorted(names("functions")) == ["bill", "ship"]


def test_a_file_named_by_itself_may_offer_handlers_of_elsewhere(project):
    write("lib/handlers.py", HANDLER.format(name="bill"))
    write("lib/app.py", "from handlers import bill")
    (handler,) = loading.load("lib/app.py").handlers
    assert (handler.module, handler.qualname) == ("app", "bill")


def test_an_alias_and_an_adapter_are_the_same_handler(project):
    write(
        "functions/app.py", HANDLER.format(name="bill") + "import kflow\nsame = bill\nh = kflow.lambda_handler(bill)\n"
    )
    (handler,) = loading.load("functions").handlers
    assert handler.qualname == "bill"


def test_a_handler_made_by_a_factory_is_taken_by_the_name_it_got(project):
    write(
        "functions/app.py",
        """\
        from kflow import on_stream

        def make(stream):
            @on_stream(stream, function_name=f"copy-{stream}")
            def copy(event, context): ...
            return copy

        orders, clicks = make("orders"), make("clicks")
        """,
    )
    handlers = loading.load("functions").handlers
    assert [(handler.name, handler.qualname) for handler in handlers] == [
        ("copy-clicks", "clicks"),
        ("copy-orders", "orders"),
    ]


def test_two_functions_of_one_name_are_refused_with_both_lines(project):
    write("functions/a/app.py", HANDLER.format(name="bill"))
    write("functions/b/app.py", HANDLER.format(name="bill"))
    assert refusal("functions") == (
        "functions/b/app.py:4: a function named bill is at functions/a/app.py:4 already: "
        'rename one of them, or give it @on_stream(..., function_name="...")'
    )


def test_a_name_that_lambda_does_not_take_is_refused(project):
    write("functions/app.py", HANDLER.format(name="facturación"))
    assert refusal("functions") == (
        "functions/app.py:4: facturación cannot be a function's name on Lambda "
        '(1 to 64 of the letters a-z and A-Z, digits, - and _): give it another one with function_name="..."'
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "functions/",
            "functions/: no such file or folder: name a .py file, a folder or a module such as package.module",
        ),
        (
            "nothing.here",
            (
                "nothing.here: there is no such file, folder or module below {project}: "
                "name a .py file, a folder or a module such as package.module"
            ),
        ),
        ("data.csv", "data.csv is no Python file: name a .py file, a folder or a module"),
        (
            "empty",
            (
                "no handlers in empty: no .py file there uses @on_stream or @on_queue "
                "(tests, hidden folders and virtual environments are not searched)"
            ),
        ),
        (
            "plain.py",
            (
                "plain.py has no handlers: none of its module-level functions is decorated with @on_stream or "
                "@on_queue (a worker cannot import methods, or functions inside functions)"
            ),
        ),
    ],
)
def test_a_path_without_handlers_is_refused(project, path, message):
    write("data.csv", "a,b")
    write("plain.py", "x = 1")
    write("empty/helper.py", "")
    assert refusal(path) == message.format(project=project)


def test_methods_alone_are_no_handlers(project):
    write(
        "functions/app.py",
        """\
        from kflow import on_stream
        class Shop:
            @on_stream("orders")
            def bill(self, event, context): ...
        """,
    )
    assert refusal("functions") == (
        "functions/app.py has no handlers: none of its module-level functions is decorated with @on_stream or "
        "@on_queue (a worker cannot import methods, or functions inside functions)"
    )


@pytest.mark.parametrize("name", ["json", "__main__", "kflow"])
def test_a_file_named_like_a_module_of_python_is_refused(project, name):
    write(f"functions/{name}.py", HANDLER.format(name="bill"))
    assert refusal("functions") == (
        f"functions/{name}.py: a module cannot be imported under the name `{name}`, "
        "it has another meaning in Python: rename it"
    )


def test_a_missing_import_shows_the_users_own_lines(project):
    write("functions/app.py", "import pricing\n" + HANDLER.format(name="bill"))
    write("functions/pricing.py", "\nimport panda_s\n")
    assert refusal("functions") == (
        "functions/app.py cannot be imported\n"
        "  functions/app.py:1 in <module>\n"
        "    import pricing\n"
        "  functions/pricing.py:2 in <module>\n"
        "    import panda_s\n"
        "ModuleNotFoundError: No module named 'panda_s'\n"
        f"if panda_s is a library, install it for {sys.executable}; if it is yours, it must lie in functions "
        "(the function's folder is its import root, as on Lambda)"
    )


def test_an_error_at_import_shows_the_users_own_lines_and_no_librarys(project):
    write("functions/app.py", "import json\nRATES = json.loads('nonsense')\n" + HANDLER.format(name="bill"))
    assert refusal("functions") == (
        "functions/app.py cannot be imported\n"
        "  functions/app.py:2 in <module>\n"
        "    RATES = json.loads('nonsense')\n"
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    )


def test_an_exit_at_import_is_explained(project):
    write("functions/app.py", "import sys\nsys.exit('no config')\n" + HANDLER.format(name="bill"))
    assert refusal("functions") == (
        "functions/app.py cannot be imported\n"
        "  functions/app.py:2 in <module>\n"
        "    sys.exit('no config')\n"
        "SystemExit: no config\n"
        "a module must not end the process when it is imported"
    )


def test_a_syntax_error_shows_its_line(project):
    write("functions/app.py", "from kflow import on_stream\n\ndef bill(event, context:\n    pass\n")
    assert refusal("functions") == (
        "functions/app.py:3: SyntaxError: '(' was never closed\n    def bill(event, context:"
    )


def test_a_syntax_error_in_a_neighbour_shows_both(project):
    write("functions/app.py", "import pricing\n" + HANDLER.format(name="bill"))
    write("functions/pricing.py", "x = = 1\n")
    assert refusal("functions") == (
        "functions/app.py cannot be imported\n"
        "  functions/app.py:1 in <module>\n"
        "    import pricing\n"
        "  functions/pricing.py:1\n"
        "    x = = 1\n"
        "SyntaxError: invalid syntax"
    )


def test_everything_that_is_wrong_is_said_at_once(project):
    write("functions/a/app.py", 'from kflow import on_stream\n@on_stream("orders", batch_size=0)\ndef a(e, c): ...\n')
    write("functions/b/app.py", 'from kflow import on_stream\n@on_stream("orders")\ndef b(order: int): ...\n')
    assert refusal("functions") == (
        "functions/a/app.py:2: batch_size must be a whole number from 1 to 10000, not 0\n"
        "\n"
        "functions/b/app.py:3: b takes only `order: int`: did you mean `Record[int]`? (a handler is "
        "`def b(event, context)`, or takes one `Record`, `Record[T]`, `Batch` or `Batch[T]`)"
    )


def test_a_check_may_refuse_a_handler_while_its_module_is_there(project):
    write(
        "functions/app.py",
        """\
        from __future__ import annotations
        from kflow import Record, on_stream

        @on_stream("orders")
        def bill(order: Record[Order]) -> None: ...

        class Order: ...
        """,
    )
    with pytest.raises(UsageError) as caught:
        loading.load("functions", check=forms.adapt)
    assert str(caught.value) == (
        "functions/app.py:5: bill: JSON cannot be decoded to `Order` (msgspec does not know `Order`): "
        "use a dataclass, a TypedDict, a msgspec.Struct, a Pydantic model or a builtin type"
    )


def test_a_record_that_takes_its_batch_with_it_is_warned_of(project):
    write(
        "functions/app.py",
        """\
        from kflow import Record, on_stream

        @on_stream("orders", maximum_retry_attempts=2)
        def bill(order: Record) -> None: ...

        @on_stream("orders", maximum_retry_attempts=2, bisect_batch_on_function_error=True)
        def ship(order: Record) -> None: ...
        """,
    )
    assert loading.load("functions").warnings == (
        (
            "functions/app.py:4: bill: a record that exhausts its 2 retries takes the rest of its batch with it, "
            "as on AWS; bisect_batch_on_function_error=True isolates it"
        ),
    )


def test_the_zygote_is_offered_what_the_sources_import_at_their_top_level(project):
    write(
        "functions/app.py",
        """\
        from __future__ import annotations
        import json, xml.dom
        from collections.abc import Mapping
        from typing import TYPE_CHECKING
        import prices
        from . import nothing
        import kflow
        if TYPE_CHECKING:
            import boto3
        try:
            import orjson
        except ImportError:
            orjson = None

        def later():
            import csv
        """,
    )
    write("functions/prices.py", "")
    assert loading.preload_candidates([str(Path("functions/app.py").absolute())]) == [
        "collections.abc",
        "json",
        "orjson",
        "typing",
        "xml.dom",
    ]


def test_a_worker_loads_the_function_and_keeps_its_folder_on_the_path(project):
    write("functions/a/prices.py", "PRICE = 3")
    write(
        "functions/a/app.py",
        """\
        from kflow import on_stream

        @on_stream("orders")
        def bill(event, context):
            import prices
            return prices.PRICE
        """,
    )
    (handler,) = loading.load("functions").handlers
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys, msgspec\n"
                "from kflow import loading\n"
                "from kflow.declarations import Handler\n"
                "handler = msgspec.json.decode(sys.argv[1], type=Handler)\n"
                "print(loading.load_function(handler)({}, None))"
            ),
            _json(handler),
        ],
        env={"PYTHONPATH": str(Path(loading.__file__).parents[2])},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3\n"


def _json(handler) -> str:
    import msgspec

    return msgspec.json.encode(handler).decode()


def test_a_handler_that_has_gone_since_is_named(project, monkeypatch):
    import msgspec

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "gone_since", None)
    del sys.modules["gone_since"]
    write("functions/gone_since.py", HANDLER.format(name="bill"))
    (handler,) = loading.load("functions").handlers
    gone = msgspec.structs.replace(handler, qualname="ship")
    with pytest.raises(loading.HandlerNotFound) as caught:
        loading.load_function(gone)
    assert str(caught.value) == "Handler 'ship' missing on module 'gone_since'"


def test_handlers_of_queues_are_found_and_described(project):
    write(
        "functions/app.py",
        """\
        from kflow import *
        @on_queue("jobs", batch_size=3)
        def work(message: Message[int]): ...
        """,
    )
    (handler,) = loading.load("functions").handlers
    assert (handler.name, handler.form, handler.typed, handler.triggers) == ("work", HandlerForm.MESSAGE, True, ())
    assert [(queue.queue, queue.line, queue.options.batch_size) for queue in handler.queues] == [("jobs", 2, 3)]


def test_an_event_handler_may_have_streams_and_queues(project):
    write(
        "functions/app.py",
        """\
        from kflow import on_queue, on_stream
        @on_stream("orders")
        @on_queue("jobs")
        def work(event, context): ...
        """,
    )
    (handler,) = loading.load("functions").handlers
    assert [each.stream for each in handler.triggers] == ["orders"]
    assert [each.queue for each in handler.queues] == ["jobs"]


def test_a_form_of_queues_under_a_stream_is_refused_with_both_lines(project):
    write(
        "functions/app.py",
        """\
        from kflow import Messages, on_stream
        @on_stream("orders")
        def work(messages: Messages): ...
        """,
    )
    assert refusal("functions").endswith(
        "app.py:3: work takes messages of a queue, and @on_stream at functions/app.py:2 brings others: take `Record`, "
        "`Record[T]`, `Batch`, or an event"
    )
