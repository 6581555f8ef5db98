"""Every block of every README is run, or says why it is not.

How a block is treated, by its language and by an HTML comment on the line above it:

- `<!-- file: PATH -->`: written to PATH in the document's own project folder.
- `<!-- not run: REASON -->`: left alone, for the reason given.
- `console`: each `$ command` is run by bash in the project folder; it must succeed, and print the lines that follow it,
  where `…` stands for any text in a line, and a line that is `…` alone for any lines. What differs from run to run need
  not be the same: times, sequence numbers, rates, the width of columns. A command without lines may print anything.
- `sh`: each line is run, and must succeed.
- `python`: run by a fresh interpreter in the project folder.
- `json`, `toml`: must parse (each line of JSON by itself where the whole is no JSON).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "kflow/README.md",
    "kflow/services/kinesis.md",
    "kflow/services/lambda.md",
    "kflow/services/others.md",
    "plugins/README.md",
    "plugins/jsonl/README.md",
    "functions/README.md",
    "functions/delays/README.md",
    "functions/archive/README.md",
    "tests/README.md",
)
BLOCK = re.compile(r"^(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_LINES = "…"
VARYING = (
    (re.compile(r"\b[\d.,]+ (ms|s)\b"), "<duration>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\b49(\d{54}|…\d{3})"), "<sequence number>"),
    (re.compile(r"\b[\d,]+ records/s\b"), "<rate>"),
    (re.compile(r"\bhttp://127\.0\.0\.1:\d+"), "<url>"),
    (re.compile(r" {2,}"), "  "),
)


class Block(NamedTuple):
    line: int
    language: str
    note: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start("text")), found["language"], found["note"] or "", found["text"])
        for found in BLOCK.finditer(text)
    ]


class Project:
    """A folder where one document's blocks are run, one after the other, as its reader would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KFLOW_", "AWS_", "PYTEST_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "KFLOW_RETRY_BACKOFF_SCALE": "0",  # the reader waits for retries as on AWS; the test need not
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def shell(self, command: str) -> str:
        return self.run("bash", "-euo", "pipefail", "-c", command)


def without_varying(text: str) -> list[str]:
    """The lines of a text, with what differs from run to run replaced by its name."""
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text.splitlines()


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether what was printed is what the document shows, `…` standing for anything."""
    if not expected:
        return not printed
    if expected[0].strip() == ANY_LINES:
        return any(matches(expected[1:], printed[skipped:]) for skipped in range(len(printed) + 1))
    if not printed:
        return False
    pattern = ".*".join(re.escape(part) for part in expected[0].rstrip().split(ANY_LINES))
    return re.fullmatch(pattern, printed[0].rstrip()) is not None and matches(expected[1:], printed[1:])


def run_console(project: Project, text: str) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, rest = part.partition("\n")
        printed = project.shell(command)
        expected = without_varying(rest)
        assert not expected or matches(expected, without_varying(printed)), (
            f"`{command}` printed\n{printed}\nand the document shows\n{rest}"
        )


def parse_json(text: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_shows_works(document: str, project: Project) -> None:
    if document.startswith("functions/"):  # these speak of commands in a clone
        shutil.copytree(ROOT / "functions", project.folder / "functions")
    if document == "plugins/jsonl/README.md":
        shutil.copytree(ROOT / "plugins", project.folder / "plugins")
    for block in blocks(document):
        place = f"{document}:{block.line}"
        kind, _, value = block.note.partition(": ")
        if kind == "not run":
            assert value, f"{place}: say why it is not run"
            continue
        if kind == "file":
            path = project.folder / value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language == "console":
            run_console(project, block.text)
        elif block.language == "sh":
            for line in block.text.splitlines():
                project.shell(line)
        elif block.language == "python" and kind != "file":
            project.run(sys.executable, "-W", "error", "-c", block.text)
        elif block.language == "python":
            compile(block.text, place, "exec")
        elif block.language == "json":
            parse_json(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        else:
            assert block.language == "", f"{place}: nobody says how a {block.language} block is tested"


def test_every_markdown_document_is_listed_or_has_no_blocks() -> None:
    tracked = [
        path.relative_to(ROOT).as_posix()
        for folder in ("", "kflow", "plugins", "functions", "tests")
        for path in (ROOT / folder).glob("**/*.md" if folder else "*.md")
        if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
    ]
    assert sorted(path for path in tracked if blocks(path) and path not in DOCUMENTS) == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8"))
        if not (ROOT / document).parent.joinpath(target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a … c"], ["a b c"], True),
        (["a … c"], ["a b d"], False),
        (["a", "…", "d"], ["a", "b", "c", "d"], True),
        (["a", "…"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
    ],
)
def test_an_ellipsis_stands_for_anything(expected: list[str], printed: list[str], same: bool) -> None:
    assert matches(expected, printed) is same
