"""The benches: how near kflow comes to what the machine can do.

    python tests/bench/run.py [NAME...] [--json] [--quick] [--list]

Each figure stands beside its limit, which is measured in the same run, in turn with it. What counts is the ratio, or
CPU time: wall-clock figures of a shared machine say more about the machine. Value and limit are those of the pair of
measurements whose ratio is the median. Every bench runs in a process of its own. With `--quick` a few repetitions show
that the benches work; their figures are never judged.

Exit codes: 0 every must is reached, 1 a must is missed (or a bench failed), 2 usage.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # so that the modules beside this one are `tests.bench.x` and hide nobody else's names

from tests.bench.figures import HEADING, Figure  # noqa: E402

Bench = Callable[[bool], Iterator[Figure]]

BENCHES = {
    "append": "appending:append",
    "put": "putting:put",
    "put-node": "putting:put_node",
    "producer": "putting:producer",
    "put-single": "putting:put_single",
    "read": "reading:read",
    "deliver-lambda": "delivering:deliver_lambda",
    "deliver-batch": "delivering:deliver_batch",
    "wake": "waking:wake",
    "start": "starting:start",
    "backlog": "backlog:backlog",
    "idle": "idling:idle",
    "always": "durable:always",
    "recovery": "recovering:recover",
    "filter": "filtering:filters",
    "lanes": "laning:lanes",
    "shards": "sharding:shards",
    "split": "splitting:split",
    "simulate": "simulating:simulation",
    "http-put": "serving:http_put",
    "http-get": "serving:http_get",
    "http-push": "serving:http_push",
    "serve": "serving:serve",
    "hosted": "functions:hosted",
    "mapped": "functions:mapped",
    "mappings": "functions:mappings",
    "queues": "queues:queues",
}
"""Name to module and function, in the order in which they run."""


def main(argv: list[str]) -> int:
    """Run the benches that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run.py", description="Measure kflow against what the machine can do.", allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches to run; all where none is named")
    parser.add_argument("--json", action="store_true", help="one JSON object a figure and line")
    parser.add_argument("--quick", action="store_true", help="few repetitions, nothing is judged: does it work at all?")
    parser.add_argument("--list", action="store_true", help="say which benches there are")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.list:
        for name in options.names or BENCHES:
            print(f"{name:<16}{(find(name).__doc__ or '').splitlines()[0]}")
        return 0
    if sys.platform != "linux":
        parser.error("the benches read CPU clocks of other processes as only Linux has them")
    names: list[str] = options.names or list(BENCHES)
    if not options.json:
        print(HEADING, flush=True)
    if len(names) == 1:
        return run(names[0], json=options.json, quick=options.quick)
    return max([run_apart(name, json=options.json, quick=options.quick) for name in names])


def find(name: str) -> Bench:
    """The function of a bench: told whether to be quick, it yields figures."""
    module, function = BENCHES[name].split(":")
    bench: Bench = getattr(importlib.import_module(f"tests.bench.{module}"), function)
    return bench


def run(name: str, *, json: bool, quick: bool) -> int:
    """Run one bench in this process."""
    code = 0
    for figure in find(name)(quick):
        if json and figure.must is None:
            continue  # told to people, judged by nobody
        print(figure.as_json() if json else figure.as_row(judged=not quick), flush=True)
        if not figure.ok and not quick:
            code = 1
    return code


def run_apart(name: str, *, json: bool, quick: bool) -> int:
    """Run one bench in a process of its own: what another one left in memory must not weigh on it."""
    command = [sys.executable, __file__, name, *["--json"] * json, *["--quick"] * quick]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            if line.rstrip() != HEADING.rstrip():
                print(line, end="", flush=True)
    if child.returncode not in (0, 1):
        print(f"{name}: ended with exit status {child.returncode}", file=sys.stderr, flush=True)
    return int(child.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
