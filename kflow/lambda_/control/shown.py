"""A function as answers show it.

Source: documented: FunctionConfiguration; recorded: which members are there, and the reasons of states.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Final

from kflow.broker.attributes import lasts
from kflow.lambda_.control.declared import UNREAD
from kflow.lambda_.control.facts import LATEST, Configuration
from kflow.lambda_.control.function import Function
from kflow.lambda_.control.names import own_log_group

_CREATING: Final = "The function is being created."
_PENDING: Final = {"State": "Pending", "StateReason": _CREATING, "StateReasonCode": "Creating"}
_UPDATING: Final = {
    "State": "Active",
    "LastUpdateStatus": "InProgress",
    "LastUpdateStatusReason": _CREATING,
    "LastUpdateStatusReasonCode": "Creating",
}
_ACTIVE: Final = {"State": "Active", "LastUpdateStatus": "Successful"}


def time(epoch_ms: int) -> str:
    """As Lambda writes times in texts: `2026-11-26T20:00:00.123+0000`."""
    moment = dt.datetime.fromtimestamp(epoch_ms // 1000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}+0000"


def is_pending(configuration: Configuration, now_ms: int) -> bool:
    """Whether it is being made still."""
    return lasts(configuration.active_ms, now_ms)


def is_updating(configuration: Configuration, now_ms: int) -> bool:
    """Whether its last update is under way still."""
    return lasts(configuration.updated_ms, now_ms)


def configuration(
    function: Function, shown: Configuration, qualifier: str, now_ms: int, *, has_states: bool = True
) -> dict[str, Any]:
    """One version of a function.

    Args:
        function: whose.
        shown: the version.
        qualifier: of the ARN that is shown; empty: none.
        now_ms: what its state depends on.
        has_states: False: as lists have it.
    """
    found: dict[str, Any] = {
        "FunctionName": function.name,
        "FunctionArn": function.qualified(qualifier),
        "Runtime": shown.runtime,
        "Role": shown.role,
        "Handler": shown.entry,
        "CodeSize": shown.code.size,
        "Description": shown.description,
        "Timeout": shown.timeout_s,
        "MemorySize": shown.memory_mb,
        "LastModified": time(shown.modified_ms),
        "CodeSha256": shown.code.sha256 if shown.code != UNREAD else "",
        "Version": shown.version,
        "TracingConfig": {"Mode": shown.tracing},
        "RevisionId": shown.revision,
        "PackageType": "Zip",
        "Architectures": [shown.architecture],
        "EphemeralStorage": {"Size": shown.storage_mb},
        "SnapStart": {"ApplyOn": shown.snap_start, "OptimizationStatus": "Off"},
        "LoggingConfig": _logging(function, shown),
    }
    if shown.environment is not None:
        found["Environment"] = {"Variables": shown.environment}
    if shown.dead_letter:
        found["DeadLetterConfig"] = {"TargetArn": shown.dead_letter}
    if shown.key_arn:
        found["KMSKeyArn"] = shown.key_arn
    if shown.layers:
        found["Layers"] = [{"Arn": each.arn, "CodeSize": each.code.size} for each in shown.layers]
    if shown.subnets:
        found["VpcConfig"] = {
            "SubnetIds": list(shown.subnets),
            "SecurityGroupIds": list(shown.security_groups),
            "VpcId": "vpc-00000000",
            "Ipv6AllowedForDualStack": False,
        }
    if has_states:
        found["RuntimeVersionConfig"] = {"RuntimeVersionArn": runtime_arn(function, shown)}
        found |= _PENDING if is_pending(shown, now_ms) else _UPDATING if is_updating(shown, now_ms) else _ACTIVE
    return found


def as_new(function: Function, made: Configuration) -> dict[str, Any]:
    """What was made or changed just now, as answers have it: on its way, however short that is."""
    found = configuration(function, made, "" if made.version == LATEST else made.version, 0)
    for name in _ACTIVE:
        del found[name]
    return found | (_UPDATING if made.updated_ms else _PENDING)


def runtime_arn(function: Function, shown: Configuration) -> str:
    """A runtime version that is always the same one: this machine's."""
    return f"arn:aws:lambda:{function.place.region}::runtime:{hashlib.sha256(shown.runtime.encode()).hexdigest()}"


def _logging(function: Function, shown: Configuration) -> dict[str, str]:
    found = {"LogFormat": shown.log_format, "LogGroup": shown.log_group or own_log_group(function.name)}
    if shown.log_format == "JSON":
        found["ApplicationLogLevel"] = shown.log_level
        found["SystemLogLevel"] = shown.system_log_level
    return found
