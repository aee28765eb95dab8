"""vla-dataset contract as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rosbags")

from helpers.commands import error_of
from helpers.ros_bags import write_pusht_bag

from vla_policy.cli.dataset import main


def status(*arguments: str) -> int:
    try:
        main(["contract", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_contract_alone_and_beside_its_urdf(capsys: pytest.CaptureFixture) -> None:
    assert status("xarm6", "urdf=xarm6_pusher") == 0
    told = capsys.readouterr().out
    assert "action: ['x', 'y'] to /target_pose as PoseStamped, 50 Hz" in told
    assert told.endswith("nothing is wrong\n")
    assert status("ur5e", "urdf=xarm6_pusher") == 1
    assert "expected the joints ['shoulder_pan_joint'" in capsys.readouterr().out


def test_a_bag_that_fits_and_one_that_does_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bag = write_pusht_bag(tmp_path / "good.mcap", 20)
    assert status("pusht_sim", f"bag={bag}") == 0
    told = capsys.readouterr().out
    assert "/pusht_sim/camera/image_raw: 10 Hz" in told
    assert "command/executed: the actions are those that the gate executed" in told
    bag = write_pusht_bag(tmp_path / "depth.mcap", 20, encoding="16UC1", executed="elsewhere")
    assert status("pusht_sim", f"bag={bag}", "json=true") == 1
    wrong = [finding["text"] for finding in json.loads(capsys.readouterr().out) if finding["level"] == "wrong"]
    assert any(text.startswith("would be refused: /pusht_sim/camera/image_raw: encoding") for text in wrong)
    assert any(
        "/pusht_sim/target_pose: expected geometry_msgs/msg/PoseStamped, found no such topic" in text for text in wrong
    )


@pytest.mark.parametrize("arguments", [["nowhere"], ["xarm6", "urdf=nowhere"], ["xarm6", "bag=nowhere.mcap"]])
def test_mistakes_are_one_line(arguments: list[str]) -> None:
    assert "nowhere" in error_of(main, "contract", *arguments)
