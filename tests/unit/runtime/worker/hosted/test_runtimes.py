"""Which program runs a function, and what it finds in its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kflow.declarations import Package
from kflow.runtime.worker.hosted import runtimes
from kflow.runtime.worker.hosted.runtimes import HERE, Program, Unsupported, left_out, program, wrapped
from kflow.runtime.worker.hosted.variables import runtime_variables

OWN = f"python3.{sys.version_info.minor}"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    (tmp_path / "code").mkdir()
    return Package(
        function="bill", version="7", runtime=OWN, entry="app.handler", code=str(tmp_path / "code"), region="eu-west-1"
    )


def of(package: Package, **changes) -> Package:
    return msgspec.structs.replace(package, **changes)


def nowhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    runtimes._interpreter.cache_clear()


def test_a_function_of_this_python_runs_on_it(package):
    assert program(package) == (
        [sys.executable, "-P", str(HERE / "python_client.py"), "app.handler"],
        True,
        "",
    )


def test_another_python_is_taken_where_it_runs(package, tmp_path, monkeypatch):
    nowhere(monkeypatch, tmp_path)
    found = tmp_path / "python3.99"
    found.write_text("#!/bin/sh\necho /opt/python3.99\n")
    found.chmod(0o755)
    assert program(of(package, runtime="python3.99")).arguments[0] == "/opt/python3.99"
    assert program(of(package, runtime="python3.99")).note == ""


@pytest.mark.parametrize("script", ["", "#!/bin/sh\nexit 127\n"])
def test_a_python_that_is_not_there_or_does_not_run_is_replaced_by_this_one_and_that_is_said(
    package, tmp_path, monkeypatch, script
):
    nowhere(monkeypatch, tmp_path)
    if script:
        (tmp_path / "python3.98").write_text(script)
        (tmp_path / "python3.98").chmod(0o755)
    found = program(of(package, runtime="python3.98"))
    assert found.arguments[0] == sys.executable
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found.note == f"there is no python3.98 on PATH: the function runs on Python {own}, kflow's own"


def test_node_runs_awss_client_where_that_is_installed_with_the_code(package, tmp_path, monkeypatch):
    nowhere(monkeypatch, tmp_path)
    monkeypatch.delenv("NODE_PATH", raising=False)
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    js = of(package, runtime="nodejs22.x", entry="index.handler")
    assert program(js).arguments == [str(node), str(HERE / "node_client.mjs"), "index.handler"]
    client = Path(package.code, "node_modules", "aws-lambda-ric")
    (client / "bin").mkdir(parents=True)
    (client / "bin" / "index.mjs").write_text("")
    (client / "package.json").write_text(json.dumps({"bin": {"aws-lambda-ric": "bin/index.mjs"}}))
    assert program(js).arguments == [str(node), str(client / "bin/index.mjs"), "index.handler"]


def test_a_function_of_node_without_node_is_told_what_is_missing(package, tmp_path, monkeypatch):
    nowhere(monkeypatch, tmp_path)
    with pytest.raises(Unsupported, match=r"the runtime nodejs22\.x needs `node` on PATH, which is not there"):
        program(of(package, runtime="nodejs22.x"))


def test_bootstrap_is_of_the_code_then_of_the_last_layer_that_has_one(package, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "bootstrap").write_text("#!/bin/sh\n")
        (folder / "bootstrap").chmod(0o755)
    own = of(package, runtime="provided.al2023", layers=(str(one), str(two)))
    assert program(own).arguments == [str(two / "bootstrap")]
    Path(package.code, "bootstrap").write_text("#!/bin/sh\n")
    with pytest.raises(Unsupported, match="may not be executed: set its mode in the zip"):
        program(own)
    Path(package.code, "bootstrap").chmod(0o755)
    assert program(own).arguments == [str(Path(package.code, "bootstrap"))]


def test_a_function_without_bootstrap_and_one_of_another_runtime_are_told_why(package):
    with pytest.raises(Unsupported, match="needs a file `bootstrap` in the code, or in a layer"):
        program(of(package, runtime="provided.al2"))
    with pytest.raises(Unsupported, match=r"cannot run the runtime ruby3\.3: it runs python3\.X, nodejsX\.x and prov"):
        program(of(package, runtime="ruby3.3"))


def variables(package: Package, **user: str) -> dict[str, str]:
    return runtime_variables(
        package,
        address="127.0.0.1:9001",
        memory_mb=256,
        log_stream="2026/11/26/[7]d84f",
        region="eu-west-1",
        user=user,
        inherited={
            "PATH": "/usr/bin",
            "HOME": "/home/me",
            "SECRET": "of the shell",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
            "AWS_ACCESS_KEY_ID": "AKIALOCAL",
            "KFLOW_TARGET": "local",
            "no_proxy": "127.0.0.1",
        },
        temporary="/tmp/7",
    )


def test_the_environment_is_lambdas_and_what_sdks_need_and_nothing_of_the_shell(package):
    code = package.code
    assert variables(of(package, runtime="python3.11"), STAGE="dev") == {
        "AWS_LAMBDA_FUNCTION_NAME": "bill",
        "AWS_LAMBDA_FUNCTION_VERSION": "7",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bill",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/26/[7]d84f",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.11",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIALOCAL",
        "AWS_SESSION_TOKEN": "kflow-local-only",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "_HANDLER": "app.handler",
        "LAMBDA_TASK_ROOT": code,
        "LAMBDA_RUNTIME_DIR": str(HERE),
        "PWD": code,
        "PYTHONPATH": str(HERE),
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
        "SHLVL": "0",
        "PATH": "/usr/bin",
        "LD_LIBRARY_PATH": f"{code}{os.pathsep}{code}/lib",
        "TMPDIR": "/tmp/7",
        "KFLOW_TARGET": "local",
        "no_proxy": "127.0.0.1",
        "STAGE": "dev",
    }


def test_the_users_variables_win_but_for_what_lambda_reserves(package):
    found = variables(package, TZ="Europe/Berlin", PYTHONPATH="/mine", LAMBDA_TASK_ROOT="/else", _HANDLER="x")
    assert (found["TZ"], found["PYTHONPATH"]) == ("Europe/Berlin", f"/mine{os.pathsep}{HERE}")
    assert (found["LAMBDA_TASK_ROOT"], found["_HANDLER"]) == (package.code, "app.handler")


def test_layers_stand_in_the_search_paths_the_last_one_first_where_the_last_one_wins(package, tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    Path(one, "python").mkdir(parents=True)
    Path(two, "python/lib/python3.12/site-packages").mkdir(parents=True)
    found = variables(of(package, runtime="python3.12", layers=(one, two)))
    assert found["PYTHONPATH"].split(os.pathsep) == [
        f"{two}/python/lib/python3.12/site-packages",
        f"{two}/python",
        f"{one}/python",
        str(HERE),
    ]
    assert found["PATH"].split(os.pathsep) == [f"{two}/bin", f"{one}/bin", "/usr/bin"]
    assert found["LD_LIBRARY_PATH"].split(os.pathsep)[2:] == [f"{two}/lib", f"{one}/lib"]
    assert found["LC_CTYPE"] == "C.UTF-8"
    node = variables(of(package, runtime="nodejs22.x", layers=(one,)))
    assert node["NODE_PATH"].split(os.pathsep)[:3] == [
        f"{package.code}/node_modules",
        f"{one}/nodejs/node22/node_modules",
        f"{one}/nodejs/node_modules",
    ]
    assert "PYTHONPATH" not in node


def test_search_paths_of_the_user_name_the_folders_of_code_and_layers_as_lambda_does(package, tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for folder in (f"{package.code}/lib", f"{one}/more", f"{two}/more", f"{one}/python"):
        Path(folder).mkdir(parents=True)
    own = "/var/task/lib:/opt/more:/opt/not-there:/mine:/optional"
    found = variables(of(package, layers=(one, two)), PATH="/opt/more", PYTHONPATH=own)
    assert found["PATH"] == f"{two}/more{os.pathsep}{one}/more"
    assert found["PYTHONPATH"].split(os.pathsep) == [
        f"{package.code}/lib",
        f"{two}/more",
        f"{one}/more",
        "/mine",
        "/optional",
        f"{one}/python",
        str(HERE),
    ]


def test_a_wrapper_is_given_the_command_of_the_runtime(package, tmp_path):
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "wrapper").write_text("#!/bin/sh")
    (layer / "wrapper").chmod(0o755)
    found = wrapped(Program(["python", "x"], frames=True), of(package, layers=(str(layer),)), "/opt/wrapper")
    assert found == Program([f"{layer}/wrapper", "python", "x"], frames=True)
    assert wrapped(Program(["python"]), package, "") == Program(["python"])
    assert wrapped(Program(["b"]), of(package, runtime="provided.al2023"), "/opt/wrapper") == Program(["b"])


def test_extensions_of_layers_are_named_as_they_do_not_run(package, tmp_path):
    for layer, name in (("one", "agent"), ("two", "agent"), ("two", "a.sh")):
        (tmp_path / layer / "extensions").mkdir(parents=True, exist_ok=True)
        (tmp_path / layer / "extensions" / name).write_text("#!/bin/sh")
    layers = (str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "three"))
    assert left_out(of(package, layers=layers)) == "extensions of layers do not run here: a.sh, agent"
    assert left_out(package) == ""


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [("/opt/none", 127, "/opt/none: does not exist\n"), ("/var/task/w", 126, "/var/task/w: is not an executable\n")],
)
def test_a_wrapper_that_cannot_run_ends_the_process_as_on_lambda(package, name, status, text):
    Path(package.code, "w").write_text("")
    found = wrapped(Program(["python"]), package, name)
    ended = subprocess.run(found.arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, text)


def test_the_runtime_is_told_how_to_log(package):
    found = variables(of(package, log_format="JSON", log_level="DEBUG"))
    assert (found["AWS_LAMBDA_LOG_FORMAT"], found["AWS_LAMBDA_LOG_LEVEL"]) == ("JSON", "DEBUG")
    assert "AWS_EXECUTION_ENV" not in variables(of(package, runtime="provided.al2023"))
