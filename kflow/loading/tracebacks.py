"""Whose frames a traceback shows: the user's own, kflow's, the import system's, or a library's."""

from __future__ import annotations

import importlib
import os
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

_OWN = f"{Path(__file__).parents[1]}{os.sep}"
_LIBRARIES = tuple({sysconfig.get_paths()[key] + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")})


def user_lines(trace: TracebackType | None, root: str = "") -> traceback.StackSummary:
    """The frames of a traceback that are the user's own: not kflow's, not the import machinery's, not a library's.

    Where no frame is the user's, those of the libraries are kept: some line is better than none.

    Args:
        trace: the traceback.
        root: an import root; what lies below it is the user's, also where it is installed among the libraries.
    """
    frames = [frame for frame in traceback.extract_tb(trace) if not is_machinery(frame.filename, root)]
    own = [frame for frame in frames if is_users(frame.filename, root)]
    return traceback.StackSummary.from_list(own or frames)


def trimmed(trace: TracebackType | None, root: str = "") -> TracebackType | None:
    """The traceback from the user's first frame on: what called the user's function is not shown, as on Lambda.

    Where no frame is the user's, only kflow's own leading frames are left out.
    """
    for is_start in (is_users, _is_foreign):
        frame = trace
        while frame is not None and not is_start(frame.tb_frame.f_code.co_filename, root):
            frame = frame.tb_next
        if frame is not None:
            return frame
    return None


def _is_foreign(file: str, root: str) -> bool:
    return not is_machinery(file, root)


def is_machinery(file: str, root: str = "") -> bool:
    """Whether a frame is kflow's own or the import system's."""
    if file.startswith("<frozen ") or file == importlib.__file__:
        return True
    return file.startswith(_OWN) and not _is_below(file, root)


def is_users(file: str, root: str) -> bool:
    """Whether a file is the user's own source."""
    if is_machinery(file, root) or file == "<string>":  # such as a dataclass's own __init__
        return False
    # A virtual environment may lie below the root, and the root among the libraries: the longer path decides.
    libraries = [place for place in _LIBRARIES if file.startswith(place)]
    return not libraries or (_is_below(file, root) and not any(_is_below(place, root) for place in libraries))


def _is_below(path: str, root: str) -> bool:
    return bool(root) and path.startswith(root.rstrip(os.sep) + os.sep)
