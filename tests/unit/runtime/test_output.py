"""Lines of a function's log, as Lambda writes them."""

from __future__ import annotations

from kflow.interfaces import FunctionError
from kflow.runtime.output import error_text, report


def test_the_report_rounds_up_what_is_billed_and_ends_with_a_tab() -> None:
    assert report("abc", 3010, 128, 36, init_us=110_100) == (
        "END RequestId: abc\n"
        "REPORT RequestId: abc\tDuration: 3.01 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 36 MB\tInit Duration: 110.10 ms\t\n"
    )


def test_a_timeout_says_so_in_the_report() -> None:
    assert report("abc", 3_000_000, 128, 0, status="timeout").endswith("Max Memory Used: 0 MB\tStatus: timeout\t\n")


def test_a_trace_is_indented_with_no_break_spaces() -> None:
    error = FunctionError(
        type="ValueError", message="bad", trace=('  File "/app.py", line 6, in handler\n    raise ValueError("bad")\n',)
    )

    assert error_text(error) == (
        "[ERROR] ValueError: bad\nTraceback (most recent call last):\n"
        '\xa0\xa0File "/app.py", line 6, in handler\n\xa0\xa0\xa0\xa0raise ValueError("bad")\n'
    )
