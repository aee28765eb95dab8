"""The live page in a browser: how soon its stop holds the arm, how old its pictures are, what its server costs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from vla_policy.benchmarks.ros.cameras import TWO_CAMERAS, Cameras, Joints
from vla_policy.benchmarks.ros.fault_timing import measured, timed
from vla_policy.benchmarks.ros.graph_timing import run_until_moving
from vla_policy.benchmarks.ros.harness import Witness
from vla_policy.benchmarks.ros.measured import Hold
from vla_policy.graph.operator import Operator
from vla_policy.graph.processes import Processes
from vla_policy.graph.running import Graph
from vla_policy.robot.contract import load_contract

Launch = Callable[[], Any]  # a browser
DRAWN = "stamp_to_canvas_ms"  # in the diagnostics of the page's node
SETTLE = 3.0  # seconds until pictures flow as they go on


def drawn(diagnostics: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """`percentiles` from a picture's stamp until a page has drawn it and said so, of the latest 300 pictures."""
    keys = ("n", "p50", "p95", "p99", "max")
    return {key: float(diagnostics["web"][f"{DRAWN}.{key}"]) for key in keys}


def page_timing(
    graph: Graph, launch: Launch, token: str, repeats: int, generator: np.random.Generator, advance: Callable[[], None]
) -> tuple[list[Hold], dict[str, float]]:
    """The holds after `repeats` presses of the page's stop while the arm moves, and `drawn` meanwhile."""
    operator = graph.operator
    operator.wait(lambda: "web" in operator.diagnostics, "the page")
    found = []
    with _page(launch, f"{operator.diagnostics['web']['url']}#token={token}") as page, closing(Witness()) as witness:
        for _ in range(repeats):
            found.append(measured(partial(_stop, graph, page, witness, generator), "the page's stop"))
            advance()
        return found, drawn(operator.diagnostics)


def _stop(graph: Graph, page: Any, witness: Witness, generator: np.random.Generator) -> Hold:
    page.hover("#stop")
    run_until_moving(graph, witness, generator)
    pressed = time.time()
    page.mouse.down()
    try:
        return timed(witness, pressed)
    finally:
        page.mouse.up()
        page.click("#clear:enabled")
        page.wait_for_selector("#clear", state="hidden")


def two_cameras(seconds: float, launch: Launch, log: Path) -> dict[str, Any]:
    """The server of one open page that shows two cameras of 480 x 640 at 30 Hz, for so many `seconds`."""
    contract = load_contract(TWO_CAMERAS)
    with Processes(log) as processes, Cameras(contract), Joints(contract), Operator(lambda: None) as operator:
        server = psutil.Process(processes.start("web", contract=TWO_CAMERAS, port=0).pid)
        operator.wait(lambda: "web" in operator.diagnostics, "the page")
        with _page(launch, operator.diagnostics["web"]["url"]) as page:
            operator.wait(lambda: f"{DRAWN}.p95" in operator.diagnostics["web"], "pictures")
            page.wait_for_timeout(1e3 * SETTLE)
            server.cpu_percent(), psutil.cpu_percent()  # since when the next calls count
            page.wait_for_timeout(1e3 * seconds)
            return {
                "cpu_percent": server.cpu_percent(),
                "computer_percent": psutil.cpu_percent(),
                "pictures_per_second": [int(n) for n in re.findall(r"(\d+) pictures/s", page.inner_text("#cameras"))],
                "stamp_to_canvas_ms": drawn(operator.diagnostics),
            }


@contextmanager
def _page(launch: Launch, url: str) -> Iterator[Any]:
    with closing(launch()) as browser:
        page = browser.new_page()
        page.goto(url)
        yield page
