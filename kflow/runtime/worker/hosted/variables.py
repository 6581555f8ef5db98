"""The variables of a runtime process: Lambda's, what the worker has for SDKs, and the user's. Nothing else.

Source: documented: Lambda Developer Guide, defined runtime environment variables; recorded: values on python3.11 to
python3.14; chosen: paths of this machine stand where Lambda has `/var/task`, `/var/runtime` and `/opt`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kflow.declarations import Package
from kflow.runtime.worker.hosted import places
from kflow.runtime.worker.hosted.runtimes import HERE, node_folders, python_folders

_KEPT: Final = frozenset(
    {
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "KFLOW_DATA_DIR",
        "KFLOW_TARGET",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
)
_TOKEN: Final = "kflow-local-only"  # noqa: S105 - it opens nothing: that is its purpose


def runtime_variables(
    package: Package,
    *,
    address: str,
    memory_mb: int,
    log_stream: str,
    region: str,
    user: Mapping[str, str],
    inherited: Mapping[str, str],
    temporary: str,
) -> dict[str, str]:
    """All variables of the process.

    Args:
        package: the function's code.
        address: of the Runtime API, `host:port`.
        memory_mb: of the function.
        log_stream: name of its log stream.
        region: where the function is.
        user: the function's own variables: they win, but for what Lambda reserves.
        inherited: the worker's: already unable to reach AWS by accident.
        temporary: its folder for temporary files.
    """
    function, code, layers = package.function, package.code, package.layers[::-1]  # the last one wins
    search = os.pathsep.join
    passed = {name: value for name, value in inherited.items() if name.startswith("AWS_") or name.upper() in _KEPT}
    passed.setdefault("AWS_SESSION_TOKEN", _TOKEN)
    variables = {
        **passed,
        "PATH": search([*(os.fspath(Path(layer, "bin")) for layer in layers), inherited.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": search(
            [code, os.fspath(Path(code, "lib")), *(os.fspath(Path(layer, "lib")) for layer in layers)]
        ),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "SHLVL": "0",
        "PWD": code,
        "TMPDIR": temporary,
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
    }
    if package.runtime.startswith("python"):
        variables["PYTHONPATH"] = search([*python_folders(package), os.fspath(HERE)])
        if package.runtime not in ("python3.8", "python3.9", "python3.10", "python3.11"):
            variables["LC_CTYPE"] = "C.UTF-8"
    if package.runtime.startswith("nodejs"):
        variables["NODE_PATH"] = search(map(os.fspath, node_folders(package)))
    own = {name: places.search_path(user[name], package) for name in places.SEARCHED if name in user}
    if "PYTHONPATH" in own:  # what layers have is found all the same, as on AWS
        own["PYTHONPATH"] = search([own["PYTHONPATH"], variables.get("PYTHONPATH", "")])
    variables |= {**user, **own}
    reserved = {
        "AWS_LAMBDA_FUNCTION_NAME": function,
        "AWS_LAMBDA_FUNCTION_VERSION": package.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": package.log_group or f"/aws/lambda/{function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_RUNTIME_API": address,
        "LAMBDA_TASK_ROOT": code,
        "LAMBDA_RUNTIME_DIR": os.fspath(HERE),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "_HANDLER": package.entry,
    }
    if not package.runtime.startswith("provided"):
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{package.runtime}"
    if package.log_format == "JSON":
        reserved["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
    if package.log_level:
        reserved["AWS_LAMBDA_LOG_LEVEL"] = package.log_level
    variables.update(reserved)
    return variables
