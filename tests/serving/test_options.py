"""What goes together of the ways to compute and to play chunks, the same in evaluations, the graph and the node."""

from __future__ import annotations

from typing import Any

import pytest

from vla_policy.evaluation.success.evaluate import EvalConfig
from vla_policy.graph.application import GraphConfig, nodes
from vla_policy.interfaces import InputError
from vla_policy.planning.options import PlannerConfig

DMPC = PlannerConfig("dmpc", dynamics="somewhere")
FORESIGHT = PlannerConfig("foresight", dynamics="somewhere")


@pytest.mark.parametrize("config", [EvalConfig, GraphConfig])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunking": "sync"}, "chunking: expected one of .* found 'sync'"),
        ({"jpeg": 50}, "jpeg: expected 0 without a server, found 50"),
        ({"server": "ws://a:1", "draft": "small"}, "server: expected none with a planner or a draft"),
        ({"server": "ws://a:1", "planner": DMPC}, "server: expected none with a planner or a draft"),
        ({"planner": DMPC, "chunking": "rtc"}, "planner: expected none with chunking=rtc, found 'dmpc'"),
        ({"planner": DMPC, "chunking": "ensemble"}, "planner: expected none with chunking=ensemble, found 'dmpc'"),
        ({"planner": DMPC, "monitor": "folder"}, "planner: expected none with a monitor"),
        ({"draft": "small", "chunking": "rtc"}, "draft: expected none with chunking=rtc"),
        *(
            ({"monitor": "folder", "chunking": c}, f"monitor: expected none with chunking={c}")
            for c in ("wait", "ensemble", "rtc")
        ),
    ],
)
def test_what_does_not_go_together_is_refused(config: Any, options: dict[str, Any], message: str) -> None:
    more = {"num_envs": 1} if config is EvalConfig else {}
    with pytest.raises(InputError, match=message):
        config(**options, **more)


@pytest.mark.parametrize("config", [EvalConfig, GraphConfig])
def test_what_goes_together_is_accepted(config: Any) -> None:
    more = {"num_envs": 1} if config is EvalConfig else {}
    for options in ({"draft": "small", "planner": DMPC}, {"planner": DMPC, "chunking": "wait"}, {"monitor": "folder"}):
        config(**options, **more)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server": "ws://a:1"}, "compile: expected false with a server"),
        ({"planner": DMPC}, "compile: expected false with a planner, .* found 'dmpc'"),
    ],
)
def test_only_a_policy_that_is_asked_for_one_chunk_here_is_compiled(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GraphConfig(compile=True, **options)


def test_foresight_goes_with_chunks_that_continue() -> None:
    with pytest.raises(InputError, match="chunking: expected rtc with planner=foresight, which needs its given rows"):
        EvalConfig(planner=FORESIGHT, delay=4)
    with pytest.raises(InputError, match="chunking: expected rtc with planner=foresight"):
        GraphConfig(planner=FORESIGHT)
    assert nodes("checkpoint", GraphConfig(planner=FORESIGHT, chunking="rtc"))["policy"]["planner.name"] == "foresight"
