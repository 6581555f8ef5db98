"""Whatever happens to a worker costs its batch one attempt at most, and nothing but its batch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.broker.linking import call
from kflow.runtime.lifeline import identify
from tests.project import Project, project


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def put_numbers(shop: Project, count: int, key: str = "k", stream: str = "orders") -> None:
    lines = "".join(f'{{"n": {number}}}\n' for number in range(1, count + 1))
    (shop.folder / "numbers.jsonl").write_text(lines)
    shop.run("put", stream, "--file", "numbers.jsonl", "--key", key)


def create(shop: Project, shards: int = 1) -> None:
    shop.run("streams", "create", "orders", "--shards", str(shards))


def numbers(shop: Project) -> list[int]:
    return [note["n"] for note in shop.seen(what="record")]


def parked(shop: Project) -> list[tuple[str, int, int]]:
    return [(entry["error"]["type"], entry["attempts"], entry["records"]) for entry in shop.json("parked", "list")]


DIES_AT_5 = """
    import os, signal, sys, time
    from kflow import Record, on_stream
    @on_stream("orders", batch_size=10, maximum_retry_attempts=1, bisect_batch_on_function_error=True{options})
    def bill(record: Record) -> None:
        n = record.json()["n"]
        if n == 5:
            {death}
        note(what="record", n=n)
"""


@pytest.mark.parametrize(
    ("death", "error"),
    [
        ("os._exit(3)", "Runtime.ExitError"),
        ("os._exit(0)", "Runtime.ExitError"),
        ("sys.exit(4)", "Runtime.ExitError"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Runtime.ExitError"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Runtime.ExitError"),
        ("os.closerange(3, 256)", "Runtime.ExitError"),
        ("raise ValueError('no five')", "ValueError"),
    ],
    ids=["exit-3", "exit-0", "sys-exit", "sigkill", "sigsegv", "closes-all-fds", "raises"],
)
def test_a_record_that_kills_its_worker_is_parked_alone(shop: Project, death: str, error: str) -> None:
    create(shop)
    shop.handler(DIES_AT_5.format(options="", death=death))
    put_numbers(shop, 10)

    shop.run("run", "--drain", "--timeout", "50")

    assert parked(shop) == [(error, 2, 1)]
    assert sorted(set(numbers(shop))) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_a_timeout_is_an_attempt_with_lambdas_words(shop: Project) -> None:
    create(shop)
    shop.handler(DIES_AT_5.format(options=", timeout=1", death="time.sleep(30)"))
    put_numbers(shop, 5)

    shop.run("run", "--drain", "--timeout", "50")

    (entry,) = shop.json("parked", "list")
    assert entry["error"]["type"] == "Sandbox.Timedout"
    assert entry["error"]["message"].endswith("Error: Task timed out after 1.00 seconds")
    assert numbers(shop)[:4] == [1, 2, 3, 4]


def test_a_timeout_holds_also_where_the_handler_blocks_the_alarm(shop: Project) -> None:
    create(shop)
    shop.handler(
        DIES_AT_5.format(
            options=", timeout=1",
            death="signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); time.sleep(30)",
        )
    )
    put_numbers(shop, 5)

    shop.run("run", "--drain", "--timeout", "50")

    assert parked(shop) == [("Sandbox.Timedout", 2, 1)]


def test_a_result_that_json_cannot_hold_is_a_function_error(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import on_stream
        @on_stream("orders", maximum_retry_attempts=0)
        def bill(event, context):
            return {1, 2}
    """)
    put_numbers(shop, 2)

    shop.run("run", "--drain", "--timeout", "50")

    assert parked(shop) == [("Runtime.MarshalError", 1, 2)]


def test_a_module_that_dies_at_import_in_the_worker_costs_attempts_and_is_parked(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import os
        from kflow import on_stream
        if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            os._exit(9)
        @on_stream("orders", maximum_retry_attempts=1)
        def bill(event, context):
            note(what="called")
    """)
    put_numbers(shop, 3)

    shop.run("run", "--drain", "--timeout", "50")

    assert parked(shop) == [("Runtime.ExitError", 2, 3)]
    assert shop.seen(what="called") == []


def test_a_module_that_fails_to_import_in_the_worker_says_so_in_lambdas_words(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import os
        from kflow import on_stream
        if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            import no_such_module
        @on_stream("orders", maximum_retry_attempts=0)
        def bill(event, context):
            note(what="called")
    """)
    put_numbers(shop, 3)

    shop.run("run", "--drain", "--timeout", "50")

    (entry,) = shop.json("parked", "list")
    assert entry["error"]["type"] == "Runtime.ImportModuleError"
    assert "no_such_module" in entry["error"]["message"]


WAITS_ONCE = """
    import os, pathlib, time
    from kflow import Batch, on_stream
    @on_stream("orders", batch_size=10, maximum_retry_attempts=0)
    def bill(batch: Batch) -> None:
        note(what="begin")
        while not pathlib.Path({go!r}).exists():
            time.sleep(0.01)
        for record in batch:
            note(what="record", n=record.json()["n"])
"""


def waiting_shop(shop: Project) -> Path:
    go = shop.folder / "go"
    create(shop)
    shop.handler(WAITS_ONCE.format(go=str(go)))
    put_numbers(shop, 10)
    return go


def test_killing_the_zygote_in_mid_batch_redelivers_and_parks_nobody(shop: Project) -> None:
    go = waiting_shop(shop)
    process = shop.start()
    (first,) = shop.wait_for(lambda: shop.seen(what="begin"))
    zygote = int(Path(f"/proc/{first['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])

    os.kill(zygote, signal.SIGKILL)
    shop.wait_for(lambda: len(shop.seen(what="begin")) == 2, "the batch to be delivered again")
    go.touch()
    shop.wait_for(lambda: len(numbers(shop)) == 10)

    assert shop.stop(process) == 130
    assert parked(shop) == []
    assert identify(first["pid"]) is None


def test_a_worker_that_gives_no_sign_of_life_is_killed_and_nothing_is_counted(shop: Project) -> None:
    create(shop)
    shop.handler("""
        from kflow import Record, on_stream
        @on_stream("orders", maximum_retry_attempts=0)
        def bill(record: Record) -> None:
            note(what="record", n=record.json()["n"])
    """)
    put_numbers(shop, 1)
    process = shop.start()
    (first,) = shop.wait_for(lambda: shop.seen(what="record"))
    shop.wait_for(lambda: shop.json("status")["handlers"][0]["processed"] == 1, "the worker to be idle")

    os.kill(first["pid"], signal.SIGSTOP)
    put_numbers(shop, 1)
    shop.wait_for(lambda: len(numbers(shop)) == 2, "another worker to take the lease over")

    assert shop.seen(what="record")[1]["pid"] != first["pid"]
    assert identify(first["pid"]) is None
    assert shop.stop(process) == 130
    assert parked(shop) == []


def test_killing_the_node_in_mid_batch_leaves_no_process_and_parks_nobody(shop: Project) -> None:
    go = waiting_shop(shop)
    process = shop.start()
    (first,) = shop.wait_for(lambda: shop.seen(what="begin"))

    process.send_signal(signal.SIGKILL)
    process.wait()
    shop.wait_for(lambda: identify(first["pid"]) is None, "the worker to die with its node")
    process = shop.start()
    shop.wait_for(lambda: len(shop.seen(what="begin")) == 2)
    go.touch()
    shop.wait_for(lambda: len(numbers(shop)) == 10)

    assert shop.stop(process) == 130
    assert numbers(shop) == list(range(1, 11))
    assert parked(shop) == []


def test_a_batch_that_was_there_at_three_deaths_of_the_node_waits_and_then_runs_alone(shop: Project) -> None:
    go = waiting_shop(shop)
    for death in range(1, 4):
        process = shop.start()
        shop.wait_for(lambda death=death: len(shop.seen(what="begin")) == death)
        process.kill()
        process.wait()

    process = shop.start()
    shop.wait_for(lambda: "SUSPECT" in shop.run("status").stdout, "status to say SUSPECT")
    go.touch()
    shop.wait_for(lambda: len(numbers(shop)) == 10)

    assert shop.stop(process) == 130
    assert numbers(shop) == list(range(1, 11))
    assert parked(shop) == []


def test_a_polite_stop_lets_the_running_batch_end_and_keeps_its_checkpoint(shop: Project) -> None:
    go = waiting_shop(shop)
    process = shop.start()
    shop.wait_for(lambda: shop.seen(what="begin"))

    process.send_signal(signal.SIGINT)
    go.touch()

    assert process.wait(60) == 130
    assert numbers(shop) == list(range(1, 11))
    shop.run("run", "--drain", "--timeout", "50")
    assert numbers(shop) == list(range(1, 11))


def test_a_second_ctrl_c_kills_and_the_batch_comes_again(shop: Project) -> None:
    go = waiting_shop(shop)
    process = shop.start()
    shop.wait_for(lambda: shop.seen(what="begin"))

    process.send_signal(signal.SIGINT)
    shop.wait_for(lambda: call(shop.data_dir, "status")["stopping"], "the runtime to be stopping")
    process.send_signal(signal.SIGINT)
    process.wait(60)
    go.touch()
    shop.run("run", "--drain", "--timeout", "50")

    assert numbers(shop) == list(range(1, 11))
    assert parked(shop) == []


def test_a_second_runtime_is_refused_with_the_pid_of_the_first(shop: Project) -> None:
    waiting_shop(shop)
    process = shop.start()

    refused = shop.run("run", check=2)

    assert f"process {process.pid}" in refused.stderr
    assert "kflow stop" in refused.stderr
    shop.run("stop", "--kill")
    process.wait(30)


def test_a_second_runtime_with_other_settings_changes_nothing_of_the_first(shop: Project) -> None:
    waiting_shop(shop)
    process = shop.start()
    before = (shop.data_dir / "FORMAT").read_bytes()
    settings = shop.folder / "kflow.toml"
    settings.write_text(settings.read_text() + 'fsync = "none"\nregion = "eu-west-1"\n')

    shop.run("run", check=2)
    shop.run("status")
    shop.run("streams", "create", "more")

    assert (shop.data_dir / "FORMAT").read_bytes() == before
    shop.run("stop", "--kill")
    process.wait(30)


def test_an_sdk_call_in_a_handler_never_leaves_the_machine(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import os, socket
        from urllib.parse import urlsplit
        from kflow import on_stream
        @on_stream("orders")
        def bill(event, context):
            place = urlsplit(os.environ["AWS_ENDPOINT_URL"])
            with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
                connection.sendall(f"GET /_kflow/health HTTP/1.1\\r\\nHost: {place.netloc}\\r\\n\\r\\n".encode())
                note(where=connection.getpeername()[0], answer=connection.recv(65536).decode())
    """)
    put_numbers(shop, 1)

    shop.run("run", "--drain", "--timeout", "50")

    (seen,) = shop.seen()
    assert seen["where"] == "127.0.0.1"
    assert seen["answer"].startswith("HTTP/1.1 200 ")
    assert '"kinesis":"running"' in seen["answer"]


def test_a_handler_that_puts_into_another_stream_reaches_the_same_runtime(shop: Project) -> None:
    create(shop)
    shop.run("streams", "create", "bills")
    shop.handler("""
        import kflow
        from kflow import Record, on_stream
        @on_stream("orders")
        def bill(record: Record) -> None:
            kflow.put("bills", record.data, partition_key="b")
        @on_stream("bills")
        def book(record: Record) -> None:
            note(what="record", n=record.json()["n"])
    """)
    process = shop.start()
    put_numbers(shop, 5)

    shop.wait_for(lambda: len(numbers(shop)) == 5)

    assert numbers(shop) == [1, 2, 3, 4, 5]
    assert shop.stop(process) == 130


@pytest.mark.parametrize("way", ["zygote", "spawn"])
def test_both_ways_to_start_workers_deliver_and_survive_a_death(tmp_path: Path, way: str) -> None:
    for shop in project(tmp_path, worker_start=way):
        create(shop, shards=2)
        shop.handler(DIES_AT_5.format(options="", death="os._exit(3)"))
        put_numbers(shop, 10)

        shop.run("run", "--drain", "--timeout", "50")

        assert parked(shop) == [("Runtime.ExitError", 2, 1)]
        assert sorted(set(numbers(shop))) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_an_import_that_is_too_slow_is_run_again_inside_the_invocation(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import os, pathlib, time
        from kflow import on_stream
        MARK = pathlib.Path(__file__).with_name("imports")
        if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            with MARK.open("a") as file:
                file.write("x")
            if len(MARK.read_text()) == 1:
                time.sleep(60)
        @on_stream("orders", maximum_retry_attempts=0, timeout=30)
        def bill(event, context):
            note(what="called", attempts=len(MARK.read_text()))
    """)
    put_numbers(shop, 1)

    shop.run("run", "--drain", "--timeout", "50")

    assert [note["attempts"] for note in shop.seen(what="called")] == [2]
    assert parked(shop) == []


def test_a_runtime_that_was_stopped_for_a_while_holds_it_against_no_worker(shop: Project) -> None:
    create(shop)
    shop.handler("""
        import time
        from kflow import Record, on_stream
        @on_stream("orders", batch_size=1, timeout=1, maximum_retry_attempts=0)
        def bill(record: Record) -> None:
            time.sleep(0.01)
            note(what="record", n=record.json()["n"])
    """)
    runtime = shop.start()
    put_numbers(shop, 200)
    shop.wait_for(lambda: numbers(shop), "the first record")

    runtime.send_signal(signal.SIGSTOP)
    shop.wait_for(lambda: len(numbers(shop)) == 200, "the worker to go on by itself")
    time.sleep(2)  # past the deadline of what the runtime last knew to run
    runtime.send_signal(signal.SIGCONT)
    put_numbers(shop, 1)
    shop.wait_for(lambda: len(numbers(shop)) == 201, "the next record")

    assert len({note["pid"] for note in shop.seen()}) == 1
    assert parked(shop) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_worker_that_the_storage_keeps_from_starting_says_so_in_a_line_and_costs_no_attempt(shop: Project) -> None:
    create(shop)
    shop.handler(DIES_AT_5.format(options="", death="pass"))
    shop.start()
    (shop.data_dir / "run" / "worker-1.lock").symlink_to("/dev/full")

    put_numbers(shop, 3)

    shop.wait_for(lambda: numbers(shop) == [1, 2, 3], "the next worker to run")
    assert "error: a worker of bill cannot start: " in shop.output()
    assert "Traceback" not in shop.output()
    shop.wait_for(lambda: shop.json("status")["handlers"][0]["processed"] == 3, "the checkpoint")
    assert shop.json("status")["handlers"][0]["lanes"][0]["failures"] == 0
