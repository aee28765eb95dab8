"""config/foxglove.json shows what the recorder writes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vla_policy.nodes.recorder_node import OTHERS
from vla_policy.robot.bags import RESULT, STRING, TASK, typestore
from vla_policy.robot.contract import load_contract
from vla_policy.robot.messages import Reader

LAYOUT = json.loads((Path(__file__).parents[2] / "config" / "foxglove.json").read_text())


def paths() -> Iterator[str]:
    """Topics with the fields that are shown of them."""
    for panel in LAYOUT["configById"].values():
        if "imageMode" in panel:
            yield panel["imageMode"]["imageTopic"]
        yield from (path["value"] for path in panel.get("paths", []))


def leaves(node: Any) -> list[str]:
    return [node] if isinstance(node, str) else leaves(node["first"]) + leaves(node["second"])


@pytest.mark.parametrize("path", list(paths()))
def test_what_is_shown_is_recorded(path: str) -> None:
    topic, *fields = path.split(".")
    kind = {**Reader(load_contract("pusht_sim").streams).topics, **OTHERS, TASK: STRING, RESULT: STRING}[topic]
    for name, element in re.findall(r"(\w+)(\[\d+\])?", ".".join(fields)):
        _, kind = dict(typestore().get_msgdef(kind).fields)[name]
        if element:
            (_, kind), _ = kind  # of a sequence


def test_every_panel_has_its_place() -> None:
    assert sorted(leaves(LAYOUT["layout"])) == sorted(LAYOUT["configById"])
