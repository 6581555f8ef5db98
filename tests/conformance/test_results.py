"""What handlers return is written letter by letter as AWS's own client of the Runtime API writes it."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kflow.lambda_ import marshal

marshaller = pytest.importorskip(
    "awslambdaric.lambda_runtime_marshaller", reason="awslambdaric is not installed: pip install 'kflow-streams[ric]'"
)


class Point(NamedTuple):
    x: Any
    y: Any


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | TEXT.map(str.encode) | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Point, inner, inner)
        | st.dictionaries(TEXT | st.integers() | st.floats() | st.booleans() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Of this version of Python: up to 3.11 letters beyond ASCII are escaped."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_EXECUTION_ENV", f"AWS_Lambda_python3.{sys.version_info.minor}")
        yield marshaller.LambdaMarshaller()


@given(value=VALUES)
@example(value={"price": Decimal("1.10"), "count": Decimal(5), "at": Point(1, Decimal("NaN"))})
@example(value=b'{"raw": 1}')
def test_a_result_is_written_as_awss_client_writes_it(theirs: Any, value: Any) -> None:
    text, _ = theirs.marshal_response(value)
    assert marshal.encode(value) == (text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("value", [{1, 2}, {"a": object()}, {"a": b"\xff"}])
def test_what_it_refuses_is_refused_in_the_same_words(theirs: Any, value: Any) -> None:
    with pytest.raises(Exception, match=r"Unable to marshal response") as caught:
        theirs.marshal_response(value)
    with pytest.raises((TypeError, ValueError)) as ours:
        marshal.encode(value)
    assert getattr(caught.value, "msg", None) == f"Unable to marshal response: {ours.value}"
