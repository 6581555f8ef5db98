"""Producing: `put`, `put_many`, `Producer`, and the rule that says where to."""

from kflow.producing.calls import put, put_many, put_many_by
from kflow.producing.producer import Producer
from kflow.producing.targets import Target, runtime, set_process_runtime, target

__all__ = ["Producer", "Target", "put", "put_many", "put_many_by", "runtime", "set_process_runtime", "target"]
