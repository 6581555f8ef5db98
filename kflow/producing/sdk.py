"""boto3, where it is asked for: clients, and its errors as ours. Nothing here is imported before that."""

from __future__ import annotations

import importlib
from typing import Any

from kflow import errors
from kflow.errors import AwsError, KflowError, StorageError, UsageError

_BY_CODE = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AwsError)}


class Unanswered(StorageError):
    """The request went out and no answer came."""


def make_client(
    service: str, *, endpoint_url: str | None = None, profile: str | None = None, region: str | None = None, why: str
) -> Any:
    """A client of one service.

    Args:
        service: its name, as boto3 has it.
        endpoint_url: None: AWS's own.
        profile: of the user's AWS configuration; None: the SDK's choice.
        region: None: the SDK's choice.
        why: what needs it, for the error where boto3 is missing.

    Raises:
        UsageError: boto3 is not installed, the profile does not exist, or no region is known.
    """
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError as error:
        raise UsageError(f"{why}, which takes boto3: pip install boto3") from error
    exceptions = importlib.import_module("botocore.exceptions")
    try:
        session = boto3 if profile is None else boto3.Session(profile_name=profile)
        return session.client(service, endpoint_url=endpoint_url, region_name=region)
    except exceptions.ProfileNotFound as error:
        raise UsageError(f"{error}; `aws configure list-profiles` shows those there are") from error
    except exceptions.NoRegionError as error:
        raise UsageError("no region is known: give --region, or set AWS_DEFAULT_REGION") from error
    except ValueError as error:  # botocore's word for a URL that is none
        raise UsageError(f"{endpoint_url!r} is no endpoint: {error}; give one such as http://127.0.0.1:4566") from error


def translated(operation: Any, **arguments: Any) -> Any:
    """Call the SDK; its errors become ours.

    Raises:
        AwsError: what the service says, by its class where we have one.
        UsageError: parameters, credentials or region are missing.
        StorageError: the endpoint cannot be reached.
        Unanswered: it was reached, and did not answer.
    """
    exceptions = importlib.import_module("botocore.exceptions")
    try:
        return operation(**arguments)
    except exceptions.ClientError as error:
        told = error.response["Error"]
        raise error_of(told.get("Code", ""), told.get("Message", "")) from error
    except exceptions.ParamValidationError as error:
        raise UsageError(str(error)) from error
    except (exceptions.NoCredentialsError, exceptions.NoRegionError, exceptions.PartialCredentialsError) as error:
        raise UsageError(f"{error}; to put to local data instead, set KFLOW_TARGET=local") from error
    except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
        raise StorageError(str(error)) from error
    except exceptions.BotoCoreError as error:
        raise Unanswered(str(error)) from error


def error_of(code: str, message: str) -> KflowError:
    """The error of a code, as an answer or an entry of one has it."""
    kind = _BY_CODE.get(code)
    return AwsError(f"{code}: {message}") if kind is None else kind(message)
