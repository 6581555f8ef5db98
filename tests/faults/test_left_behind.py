"""Nothing of a runtime outlives it, whatever its handlers started and whatever state its processes are in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kflow.runtime.lifeline import identify
from tests.deadline import eventually
from tests.project import KFLOW, Project, project

STARTS_SOMETHING = """
    import os, subprocess, time
    from kflow import on_stream
    def fork():
        child = os.fork()
        if not child:
            time.sleep(300)
            os._exit(0)
        return child
    @on_stream("orders")
    def bill(event, context):
        note(child={child})
"""
SLEEPS = 'subprocess.Popen(["sleep", "300"]).pid'


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    yield from project(tmp_path)


def start_with_child(shop: Project, child: str, **run: str) -> int:
    """Run a handler that starts a process, and return the process's pid."""
    shop.run("streams", "create", "orders")
    shop.handler(STARTS_SOMETHING.format(child=child))
    shop.start(*(f"--{name}={value}" for name, value in run.items()))
    shop.run("put", "orders", "{}")
    return int(shop.wait_for(shop.seen, "the handler to run")[0]["child"])


def is_gone(pid: int) -> bool:
    return identify(pid) is None


@pytest.mark.parametrize("way", ["auto", "spawn"])
@pytest.mark.parametrize("child", [SLEEPS, "fork()"], ids=["started", "forked"])
def test_what_a_handler_leaves_running_ends_with_its_worker(shop: Project, way: str, child: str) -> None:
    pid = start_with_child(shop, child, **{"worker-start": way})
    assert not is_gone(pid)

    assert shop.stop(shop.processes[0]) == 130

    eventually(lambda: is_gone(pid), what="the handler's child to end")


def test_a_forked_child_that_outlives_a_killed_runtime_does_not_hold_up_the_next(shop: Project) -> None:
    pid = start_with_child(shop, "fork()")
    shop.processes[0].kill()
    shop.processes[0].wait(30)

    shop.run("run", "--drain")

    eventually(lambda: is_gone(pid), what="the handler's child to end")


SLOW_START = """
import sys, time
from pathlib import Path
if {module!r} in sys.orig_argv:
    Path({mark!r}).touch()
    time.sleep(1)
"""


@pytest.mark.parametrize("module", ["kflow.runtime.loader", "kflow.runtime.node.zygote"])
def test_ctrl_c_in_a_terminal_while_the_runtime_starts_ends_it_without_a_word(tmp_path: Path, module: str) -> None:
    if module == "kflow.runtime.node.zygote" and sys.platform != "linux":
        pytest.skip("only on Linux is there a zygote")
    mark = tmp_path / "mark"
    shop = Project(tmp_path)
    shop.handler(STARTS_SOMETHING.format(child="0"))
    (shop.folder / "sitecustomize.py").write_text(SLOW_START.format(module=module, mark=str(mark)))
    environment = {**shop.environment, "PYTHONPATH": str(shop.folder)}
    with (shop.folder / "output.txt").open("w") as output:
        runtime = subprocess.Popen(
            [*KFLOW, "run"], cwd=shop.folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        eventually(mark.exists, what="the import to begin")
        os.killpg(runtime.pid, signal.SIGINT)  # as a terminal does

        assert runtime.wait(60) == 130, (shop.folder / "output.txt").read_text()
    finally:
        runtime.kill()
        runtime.wait()
    text = (shop.folder / "output.txt").read_text()
    assert "Traceback" not in text
    assert "error" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a zygote")
def test_a_runtime_can_be_stopped_though_its_zygote_does_not_answer(shop: Project) -> None:
    start_with_child(shop, SLEEPS)
    (runtime,) = shop.processes
    worker = shop.seen()[0]["pid"]
    zygote = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(zygote, signal.SIGSTOP)

    runtime.send_signal(signal.SIGINT)
    shop.wait_for(lambda: shop.json("status")["runtime"]["stopping"], "the runtime to have heard")
    runtime.send_signal(signal.SIGINT)

    assert runtime.wait(60) == 130
    assert is_gone(zygote)
    eventually(lambda: is_gone(worker), what="the worker to end")


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a zygote")
def test_workers_are_started_again_where_their_zygote_does_not_answer(shop: Project) -> None:
    shop.run("streams", "create", "orders")
    shop.handler(STARTS_SOMETHING.format(child="0"))
    runtime = shop.start()
    (zygote,) = (
        int(pid)
        for pid in Path(f"/proc/{runtime.pid}/task/{runtime.pid}/children").read_text().split()
        if "kflow.runtime.node.zygote" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    os.kill(zygote, signal.SIGSTOP)

    shop.run("put", "orders", "{}")

    shop.wait_for(shop.seen, "the handler to run")
    assert is_gone(zygote)
    shop.wait_for(lambda: shop.json("status")["handlers"][0]["processed"] == 1, "the checkpoint")
    assert shop.json("status")["handlers"][0]["lanes"][0]["failures"] == 0
