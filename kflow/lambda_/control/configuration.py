"""What callers say of a function's configuration: checked in AWS's words, and turned into what is kept.

Ranges and patterns of the model have been checked already. What this machine cannot do is refused, so that nobody
counts on it; what makes no difference to what the function computes is kept and shown.

Source: recorded or documented: the texts, but those marked chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kflow import limits
from kflow.errors import ValidationFailed
from kflow.lambda_.control.facts import LayerUse
from kflow.lambda_.control.unzip import UNPACKED_BYTES
from kflow.lambda_.errors import InvalidParameterValue

STORAGE_MB: Final = 10_240
LAYERS: Final = 5

_UNABLE: Final = (
    "Lambda was unable to configure your environment variables because the environment variables you have provided"
)
_REFUSED: Final = {
    "CapacityProviderConfig": "kflow has no capacity providers",
    "CodeSigningConfigArn": "kflow checks no signatures of code",
    "DurableConfig": "kflow runs no durable executions",
    "FileSystemConfigs": "kflow mounts no file systems",
    "ImageConfig": "kflow runs no images: upload a zip",
    "TenancyConfig": "kflow keeps no tenants apart",
    "RuntimeConfig": "kflow knows no runtimes of its users' making: use provided.al2023",
    "AcceleratorConfig": "kflow has no accelerators",
    "PublishTo": "kflow has no $LATEST.PUBLISHED: publish a version",
}
"""Chosen: refused, for a function that asks for these does not work without them."""

FindLayer = Callable[[str], LayerUse | None]


def refuse_what_is_not_here(given: Any) -> None:
    """Refuse what kflow has none of.

    Raises:
        InvalidParameterValue: that was asked for.
    """
    for name, why in _REFUSED.items():
        if getattr(given, name, None):
            raise InvalidParameterValue(f"{name} is not supported here: {why}; leave it out.")
    if getattr(given, "PackageType", None) == "Image":
        raise InvalidParameterValue(
            "PackageType Image is not supported here: kflow runs zip packages only; upload the code as a zip."
        )


def changes(given: Any, layers: FindLayer, function_arn: str) -> dict[str, Any]:
    """The members of a `Configuration` that an input gives; what it leaves out is not there.

    Args:
        given: of CreateFunction or UpdateFunctionConfiguration.
        layers: finds a layer version by its ARN.
        function_arn: whose it is.

    Raises:
        InvalidParameterValue, ValidationFailed: something is not acceptable.
    """
    refuse_what_is_not_here(given)
    plain = {
        "runtime": given.Runtime,
        "role": given.Role,
        "entry": given.Handler,
        "description": given.Description,
        "timeout_s": _at_most(given.Timeout, limits.FUNCTION_SECONDS, "timeout"),
        "memory_mb": _at_most(given.MemorySize, limits.FUNCTION_MEMORY_MB, "memorySize"),
        "key_arn": given.KMSKeyArn,
    }
    found: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    if given.Environment is not None:
        found["environment"] = _environment(given.Environment.Variables or {})
    if given.Layers is not None:
        found["layers"] = _layers(given.Layers, layers, function_arn)
    if given.TracingConfig is not None:
        found["tracing"] = given.TracingConfig.Mode or "PassThrough"
    if given.DeadLetterConfig is not None:
        found["dead_letter"] = _dead_letter(given.DeadLetterConfig.TargetArn or "")
    if given.EphemeralStorage is not None:
        found["storage_mb"] = _at_most(given.EphemeralStorage.Size, STORAGE_MB, "ephemeralStorage.size")
    if given.SnapStart is not None:
        found["snap_start"] = given.SnapStart.ApplyOn or "None"
    if given.LoggingConfig is not None:
        found |= _logging(given.LoggingConfig)
    if getattr(given, "Architectures", None):
        found["architecture"] = given.Architectures[0]
    if given.VpcConfig is not None:
        found["subnets"] = tuple(given.VpcConfig.SubnetIds or ())
        found["security_groups"] = tuple(given.VpcConfig.SecurityGroupIds or ())
        if bool(found["subnets"]) != bool(found["security_groups"]):
            raise InvalidParameterValue("SubnetIds and SecurityIds must coexist or be both empty list.")
    return found


def check_size(code: int, layers: Sequence[LayerUse]) -> None:
    """Refuse code that is too much together with its layers.

    Args:
        code: unpacked bytes of the function's own.
        layers: of it.

    Raises:
        InvalidParameterValue: it is.
    """
    total = code + sum(each.code.unpacked for each in layers)
    if total > UNPACKED_BYTES:
        raise InvalidParameterValue(
            f"Function code combined with layers exceeds the maximum allowed size of {UNPACKED_BYTES} bytes. "
            f"The actual size is {total} bytes."
        )


def _at_most(value: int | None, most: int, name: str) -> int | None:
    """The model has larger ranges, for functions that kflow does not run."""
    if value is not None and value > most:
        raise ValidationFailed(
            f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: "
            f"Member must have value less than or equal to {most}"
        )
    return value


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    taken = [name for name in variables if name in limits.RESERVED_VARIABLES]
    if taken:
        raise InvalidParameterValue(
            f"{_UNABLE} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(taken)}"
        )
    measured = json.dumps(dict(variables), ensure_ascii=False, separators=(",", ":"))
    if len(measured.encode(errors="surrogatepass")) > limits.ENVIRONMENT_BYTES:
        raise InvalidParameterValue(f"{_UNABLE} exceeded the 4KB limit. String measured: {measured}")
    return dict(variables)


def _layers(arns: Sequence[str], find: FindLayer, function_arn: str) -> tuple[LayerUse, ...]:
    if len(arns) > LAYERS:
        raise InvalidParameterValue(f"Cannot reference more than {LAYERS} layers.")
    found: list[LayerUse] = []
    for text in arns:
        if text.count(":") >= 3 and text.split(":")[3] not in {"", function_arn.split(":")[3]}:
            raise InvalidParameterValue(
                f"Layers are not in the same region as the function. Layers are expected to be in region "
                f"{function_arn.split(':')[3]}."
            )
        layer = text.rpartition(":")[0]
        for other in found:
            if other.arn == text:
                raise InvalidParameterValue(f"Two layers with the same ARN are not allowed: {text}")  # chosen
            if other.arn.rpartition(":")[0] == layer:
                raise InvalidParameterValue(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{other.arn} and {text} are versions of the same layer."
                )
        use = find(text)
        if use is None:
            raise InvalidParameterValue(f"Layer version {text} does not exist.")
        found.append(use)
    return tuple(found)


def _dead_letter(target: str) -> str:
    parts = target.split(":")
    if target and (len(parts) < 6 or parts[2] not in {"sqs", "sns"}):
        raise InvalidParameterValue(
            f"The provided target service {parts[2] if len(parts) > 2 else target} is not supported as a dead letter "
            "target: use the ARN of a queue or a topic."  # chosen
        )
    return target


def _logging(given: Any) -> dict[str, str]:
    form = given.LogFormat or "Text"
    if form == "Text" and (given.ApplicationLogLevel or given.SystemLogLevel):
        raise InvalidParameterValue(
            "Log level is not supported when LogFormat is set to Text. Remove log level from your request or change "
            "the LogFormat to JSON and try again."
        )
    if given.LogGroup and given.LogGroup.startswith("aws/"):  # documented: it takes no lines; chosen: the refusal
        raise InvalidParameterValue(
            f"The log group {given.LogGroup} would get nothing: its name must not begin with aws/."
        )
    is_json = form == "JSON"
    return {
        "log_format": form,
        "log_level": given.ApplicationLogLevel or ("INFO" if is_json else ""),
        "system_log_level": given.SystemLogLevel or ("INFO" if is_json else ""),
        "log_group": given.LogGroup or "",
    }
