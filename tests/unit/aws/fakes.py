"""An exchange, a loop's timers and a service, all in memory; and a door over them."""

import json
from functools import cache
from types import SimpleNamespace

from kflow.aws.calls import Place
from kflow.aws.dispatch import Dispatcher
from kflow.aws.door import Door
from kflow.aws.models import load

HOME = Place("000000000000", "us-east-1")
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/kinesis/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=00"
)


@cache
def model(service="kinesis"):
    return load(service)


def operation(name, service="kinesis"):
    return model(service).operation(name)


class Exchange:
    """Keeps what it is answered with."""

    version = "1.1"
    is_secure = False
    is_closed = False
    on_close = None

    def __init__(self, method="POST", target="/", headers=None, body=b""):
        self.method = method
        self.target = target
        self.headers = {"host": "127.0.0.1:4566"} | (headers or {})
        self.body = body
        self.answers = []
        self.streams = []

    def respond(self, status, headers, body=b""):
        whole = b"".join(body) if isinstance(body, list) else body
        self.answers.append(SimpleNamespace(status=status, headers=dict(headers), body=whole))

    def stream(self, status, headers):
        stream = Stream(status, dict(headers))
        self.streams.append(stream)
        return stream

    @property
    def answer(self):
        (answer,) = self.answers
        return answer

    @property
    def json(self):
        return json.loads(self.answer.body)


class Stream:
    buffered = 0
    on_drain = None
    on_close = None
    is_closed = False

    def __init__(self, status, headers):
        self.status = status
        self.headers = headers
        self.data = b""

    def write(self, data):
        self.data += data

    def end(self):
        self.is_closed = True


class Timers:
    """`call_later`, and when."""

    def __init__(self):
        self.waiting = []

    def call_later(self, seconds, call):
        self.waiting.append((seconds, call))

    def fire(self):
        waiting, self.waiting = self.waiting, []
        for _, call in waiting:
            call()


class Kinesis:
    """Remembers what it is called with; answers with what it is told, or what that returns."""

    service_name = "kinesis"

    def __init__(self, **answers):
        self.calls = []
        for name, answer in answers.items():
            setattr(self, name, self._method(answer))

    def _method(self, answer):
        def method(call, given):
            self.calls.append((call, given))
            return answer(call, given) if callable(answer) else answer

        return method


def make_door(service=None, *, timers=None, before=None, **options):
    timers = timers or Timers()
    dispatcher = Dispatcher([service or Kinesis()], {"kinesis": model()}, call_later=timers.call_later, before=before)
    return Door(dispatcher, home=HOME, **options)


def ask(name, body=b"{}", *, content_type="application/x-amz-json-1.1", **headers):
    """A request as an SDK sends it; a dict as a body is JSON."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    given = {"content-type": content_type, "x-amz-target": f"Kinesis_20131202.{name}", "authorization": SIGNED}
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    return Exchange(headers={key: value for key, value in given.items() if value is not None}, body=body)
