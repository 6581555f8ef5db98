"""The context object, as Lambda's Python runtime passes it."""

from __future__ import annotations

import time

from kflow.lambda_.context import LambdaContext


def context(deadline: float = 0.0) -> LambdaContext:
    return LambdaContext(
        aws_request_id="0c3a5b9e-8d5c-4d0e-9b6a-0e2f5a7c1d11",
        function_name="bill",
        memory_limit_in_mb="128",
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:bill",
        deadline=deadline,
    )


def test_it_has_every_field_of_lambdas(monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bill")
    monkeypatch.setenv("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/26/[$LATEST]abc")
    made = context()
    assert made.aws_request_id == "0c3a5b9e-8d5c-4d0e-9b6a-0e2f5a7c1d11"
    assert made.function_name == "bill"
    assert made.function_version == "$LATEST"
    assert made.memory_limit_in_mb == "128"
    assert made.invoked_function_arn == "arn:aws:lambda:us-east-1:123456789012:function:bill"
    assert made.log_group_name == "/aws/lambda/bill"
    assert made.log_stream_name == "2026/11/26/[$LATEST]abc"
    assert made.client_context is None
    assert made.tenant_id is None
    assert made.identity.cognito_identity_id is None
    assert made.identity.cognito_identity_pool_id is None
    assert made.w3c() == {}


def test_the_remaining_time_is_whole_milliseconds_and_never_below_zero():
    assert 0 < context(time.monotonic() + 1000).get_remaining_time_in_millis() <= 1_000_000
    assert isinstance(context(time.monotonic() + 1000).get_remaining_time_in_millis(), int)
    assert context(time.monotonic() - 1).get_remaining_time_in_millis() == 0


def test_log_writes_without_a_newline(capsys):
    context().log("a")
    context().log(1)
    assert capsys.readouterr().out == "a1"


def test_libraries_may_put_attributes_on_it():
    made = context()
    made.extra = 1  # type: ignore[attr-defined]  # as powertools and tracers do
    assert made.extra == 1  # type: ignore[attr-defined]
