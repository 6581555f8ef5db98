"""Framing between the node and its children."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kflow.interfaces import FunctionError
from kflow.runtime.messages import Channel, DeathNote, Grant, Invoke, LaneGrant, Retire, Returned, Running, Stop


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    node, worker = Channel(left, "from_worker"), Channel(right, "to_worker")
    yield node, worker
    node.close()
    worker.close()


def test_messages_arrive_whole_and_in_order(pair: tuple[Channel, Channel]) -> None:
    node, worker = pair
    note = DeathNote(12, b"0123456789abcdef", FunctionError(type="Sandbox.Timedout", message="late"))
    lanes = (LaneGrant(3, 9, 250, death=note), LaneGrant(4, 1, 0, lane=5))
    grant = Grant(trigger=0, shard=7, lanes=lanes, spare=1)
    node.post(grant)
    node.post(Retire(3, 9))
    node.post(Stop())

    assert worker.receive(wait=True) == [grant, Retire(3, 9), Stop()]


def test_a_message_cut_by_the_socket_waits_for_its_rest(pair: tuple[Channel, Channel]) -> None:
    node, worker = pair
    worker.send(Running(4, bytes(16), 3000))
    data = node.socket.recv(100)
    node.socket.close()
    left, right = socket.socketpair()
    reader = Channel(left, "from_worker")
    right.send(data[:7])
    assert reader.receive(wait=False) == []
    right.send(data[7:])

    assert reader.receive(wait=False) == [Running(4, bytes(16), 3000)]
    reader.close()
    right.close()


def test_posting_never_blocks_and_keeps_what_did_not_fit(pair: tuple[Channel, Channel]) -> None:
    node, worker = pair
    count = 0
    while not node.post(Retire(count, 1)):
        count += 1
    node.post(Stop())

    received: list[object] = []
    while not received or not isinstance(received[-1], Stop):
        received += worker.receive(wait=True)
        node.flush()
    assert received == [*(Retire(number, 1) for number in range(count + 1)), Stop()]


def test_the_end_of_the_other_side_is_told_and_posting_to_it_is_void(pair: tuple[Channel, Channel]) -> None:
    node, worker = pair
    worker.send(Returned(1, 1, "idle", None, 10))
    worker.close()

    assert node.receive(wait=True) == [Returned(1, 1, "idle", None, 10)]
    assert node.receive(wait=True) == []
    assert node.closed
    assert node.post(Stop()) is False


def test_a_message_of_megabytes_arrives_piece_by_piece_between_others(pair: tuple[Channel, Channel]) -> None:
    node, worker = pair
    invoke = Invoke(7, bytes(16), b"x" * 3_000_000, "arn")
    node.post(Stop())
    assert node.post(invoke)
    assert node.post(Retire(1, 2))

    received: list[object] = []
    while len(received) < 3:
        received += worker.receive(wait=False)
        node.flush()
    assert received == [Stop(), invoke, Retire(1, 2)]
    assert not node.flush()
