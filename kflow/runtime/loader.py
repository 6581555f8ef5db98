"""Find the handlers in a process of their own: user modules run at import, and the node must outlive them.

The child imports, collects and answers with plain data; what the modules print goes to standard error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from kflow.declarations import Handler
from kflow.errors import KflowError, UsageError
from kflow.loading.places import shown

_PATIENCE_S = 60.0


class Loaded(msgspec.Struct, frozen=True):
    """What a load found.

    Attributes:
        handlers: the handlers, in order of file and line.
        preload: modules that their sources import at top level.
        warnings: what to tell people.
    """

    handlers: tuple[Handler, ...] = ()
    preload: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    loaded: Loaded | None = None
    error: str = ""
    usage: bool = True


class Loading:
    """A load under way: started at once, awaited later."""

    def __init__(self, paths: Sequence[str], environment: dict[str, str]) -> None:
        read, write = os.pipe()
        self._read = read
        self._names = ", ".join(paths)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kflow.runtime.loader", str(write), str(os.getpid()), *paths],
                pass_fds=[write],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_fd(sys.stderr) else None,
                process_group=0,  # a Ctrl-C in the terminal is this process's, which then ends it
            )
        finally:
            os.close(write)

    def result(self) -> Loaded:
        """Wait for the child.

        Raises:
            UsageError: the modules cannot be loaded; the text shows the author's own lines.
        """
        data = bytearray()
        try:
            with os.fdopen(self._read, "rb") as pipe:
                data += pipe.read()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise UsageError(
                f"{self._names}: importing left something running (a thread that is not a daemon?); "
                "start such things in the handler, or make the thread a daemon"
            ) from None
        if not data:
            raise UsageError(f"{self._names}: importing ended the process (exit status {code}); remove the exit")
        answer = msgspec.json.decode(bytes(data), type=_Answer)
        if answer.loaded is None:
            raise (UsageError if answer.usage else KflowError)(answer.error)
        return answer.loaded


def load(*paths: str, environment: dict[str, str] | None = None) -> Loaded:
    """Find the handlers under the paths in a child process and wait for the answer.

    Raises:
        UsageError: they cannot be loaded.
    """
    return Loading(paths, dict(os.environ) if environment is None else environment).result()


def _has_fd(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]  # a captured stream has none
    except (AttributeError, OSError, ValueError):
        return False
    return True


def main(argv: list[str]) -> int:
    """The child's side: load, answer, exit. Arguments: the descriptor to answer on, the parent's pid, the paths."""
    from kflow import loading
    from kflow.lambda_ import forms
    from kflow.runtime.lifeline import die_with_parent

    die_with_parent(int(argv[1]))
    answer: _Answer
    try:
        found = loading.load(*argv[2:], check=forms.adapt)
        warnings = (*found.warnings, *_filter_warnings(found.handlers))
        answer = _Answer(Loaded(tuple(found.handlers), tuple(found.preload), warnings))
    except KflowError as error:
        answer = _Answer(error=str(error), usage=isinstance(error, UsageError))
    with os.fdopen(int(argv[0]), "wb") as pipe:
        pipe.write(msgspec.json.encode(answer))
    return 0


def _filter_warnings(handlers: Sequence[Handler]) -> Iterator[str]:
    """What filters do here and may not do on AWS."""
    for trigger in (trigger for handler in handlers for trigger in handler.triggers if trigger.options.filters):
        # Only for handlers that filter: `run` waits for this process.
        from kflow.events.patterns import compile_filters

        for warning in compile_filters(trigger.options.filters).warnings:
            yield f"{shown(trigger.file)}:{trigger.line}: {warning}"
    for queue in (queue for handler in handlers for queue in handler.queues if queue.options.filters):
        from kflow.events.queue_patterns import compile_message_filters

        for warning in compile_message_filters(queue.options.filters).warnings:
            yield f"{shown(queue.file)}:{queue.line}: {warning}"


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Threads and exit hooks of user modules must not keep a load from ending: everything was answered.
    os._exit(code)
