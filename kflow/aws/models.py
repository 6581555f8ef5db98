"""Where the models come from: botocore's data folder, read without importing botocore.

Importing it costs most of a second and 20 MiB; its model of Kinesis is 30 KiB of compressed JSON. What is left of a
model (`kflow.aws.digest`) is kept in a file, named by a hash of the model file: a newer botocore is seen by itself.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from kflow.aws.digest import VERSION, digest
from kflow.aws.shapes import Model
from kflow.errors import UsageError

logger = logging.getLogger(__name__)

_MODEL = "service-2.json.gz"
_PLAIN = "service-2.json"


def data_folder() -> Path:
    """The folder of botocore's models.

    Raises:
        UsageError: botocore is not installed beside kflow.
    """
    found = importlib.util.find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the models of AWS's services are read from botocore's folder, and botocore is not installed here; "
            "it comes with boto3: pip install boto3"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def load(service: str, *, cache: Path | None = None, folder: Path | None = None) -> Model:
    """The newest model of a service. Takes some milliseconds, the first time some more.

    Args:
        service: as botocore's data folder is named, for example `kinesis`.
        cache: where digests are kept; made if missing; None, or one that cannot be written: none is kept.
        folder: of the models; None: botocore's.

    Raises:
        UsageError: botocore is missing, or has no model of this service, or a broken one.
    """
    packed = _newest(folder or data_folder(), service)
    kept = None
    if cache is not None:
        kept = cache / f"{service}-{hashlib.blake2b(packed, digest_size=8).hexdigest()}.msgpack"
        if (content := _kept(kept)) is not None:
            return Model(service, content)
    try:
        plain = gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed
        content = digest(msgspec.json.decode(plain))
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"botocore's model of {service!r} cannot be read ({error}); "
            "mend the installation: pip install --force-reinstall botocore"
        ) from error
    if kept is not None:
        _keep(kept, content)
    return Model(service, content)


def _newest(folder: Path, service: str) -> bytes:
    try:
        versions = sorted((version for version in (folder / service).iterdir()), reverse=True)
    except OSError:
        versions = []
    for version in versions:
        for name in (_MODEL, _PLAIN):
            try:
                return (version / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UsageError(f"{version / name} cannot be read: {error.strerror}") from error
    raise UsageError(
        f"{folder} has no model of {service!r}: botocore is too old or not whole; pip install --upgrade boto3"
    )


def _kept(file: Path) -> dict[str, Any] | None:
    try:
        version, content = msgspec.msgpack.decode(file.read_bytes(), type=tuple[int, dict[str, Any]])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        logger.debug("digest is made anew file=%s why=%s", file, error)
        return None
    return content if version == VERSION else None


def _keep(file: Path, content: dict[str, Any]) -> None:
    """Write beside, then rename: another process may be reading. Losing it costs milliseconds."""
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(msgspec.msgpack.encode((VERSION, content)))
        beside.replace(file)
    except OSError as error:
        logger.debug("digest is not kept file=%s why=%s", file, error)
