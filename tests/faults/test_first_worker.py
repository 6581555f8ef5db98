"""A node that began without functions: what its first worker is forked from starts beside the loop, or not at all."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.deadline import eventually
from tests.served import Served, served

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="workers are forked on Linux only")


@contextmanager
def serving(folder: Path, preloaded: str) -> Iterator[Served]:
    """`kflow serve` that preloads a module with this code, and has one function."""
    (folder / "kflow.toml").write_text('preload = ["slowly"]\n')
    (folder / "slowly.py").write_text(preloaded)
    with served(folder, PYTHONPATH=str(folder)) as place:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("app.py", "def handler(event, context):\n    return 'worked'\n")
        place.client(service="lambda").create_function(
            FunctionName="f",
            Runtime="python3.11",
            Role="arn:aws:iam::123456789012:role/r",
            Handler="app.handler",
            Code={"ZipFile": packed.getvalue()},
        )
        yield place


def test_the_node_serves_others_while_it_starts(tmp_path: Path) -> None:
    code = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'gate')!r}):\n    time.sleep(0.005)\n"
    with serving(tmp_path, code) as place:
        found: list[Any] = []
        functions = place.client(service="lambda")
        waiting = threading.Thread(
            target=lambda: found.append(functions.invoke(FunctionName="f")["Payload"].read()), daemon=True
        )
        waiting.start()
        eventually(lambda: _children(place.process.pid), what="it to be started")
        names = [each["FunctionName"] for each in place.client(service="lambda").list_functions()["Functions"]]
        assert (names, found) == (["f"], [])
        (tmp_path / "gate").touch()
        waiting.join(60)
        assert found == [b'"worked"']


def test_one_that_cannot_start_is_told_and_costs_an_error_and_no_circle(tmp_path: Path) -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    with serving(tmp_path, code) as place:
        functions = place.client(service="lambda")
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                functions.invoke(FunctionName="f")
            assert caught.value.response["Error"]["Code"] == "ServiceException"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert "preloaded modules started threads" in place.output
        notices = [text for text in place.notices() if "look at the setting `preload`" in text]
        assert len(notices) == 1
        assert place.stop() in {0, 130}


def test_a_node_that_ends_meanwhile_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving(tmp_path, "import time\ntime.sleep(60)\n") as place:
        functions = place.client(service="lambda")
        functions.invoke(FunctionName="f", InvocationType="Event")
        (child,) = eventually(lambda: _children(place.process.pid), what="it to be started")
        assert place.stop() in {0, 130}
        assert not Path(f"/proc/{child}").exists()
        assert "Traceback" not in place.output


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
