"""The simulated arm, the policy, the gate and, with a calibration, the surprise monitor: brought up and armed.

ros2 launch vla_policy pusht.launch.py checkpoint:=checkpoints/pusht_image seed:=3
"""

from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchDescription
from sim.cameras import Camera
from sim.config import PushTConfig
from vla_policy.graph import launching
from vla_policy.graph.launching import entities, node, parameter
from vla_policy.robot.contract import find_config, load_contract
from vla_policy.utils.starter import environment

ARGUMENTS = {
    "checkpoint": ("", "folder or hub name; empty: the server's, without one checkpoints/pusht_image"),
    "server": ("", "ws:// or wss:// address of a vla-serve that computes the chunks; empty: this computer"),
    "jpeg": ("0", "quality of the pictures that the server gets, 1 to 95; 0: as they are"),
    "scene": ("pusht", "pusht, or pusht_language with several goals"),
    "instruction": ("", "of all episodes; empty: with several goals each has its own, else the contract's"),
    "check_instruction": ("true", "the policy requests a stop for an instruction that it does not understand"),
    "seed": ("0", "of the first episode"),
    "chunking": ("async", "while a chunk is computed: async, wait, ensemble or rtc"),
    "calibration": ("", "folder of a calibrated surprise monitor, with chunking:=async; empty: none runs"),
    "arm": ("true", "bring all up and enable the gate"),
    "rviz": ("false", "show camera, arm and target in RViz"),
}


def nodes(context, *args, **kwargs):
    shared = {"contract": "pusht_sim"}
    model = {**shared, "checkpoint": parameter("checkpoint")}
    watched = launching.watched(context)
    heartbeats = ["policy/stop", "surprise_monitor/stop"] if watched else ["policy/stop"]

    instruction, checked, seed = parameter("instruction"), parameter("check_instruction", bool), parameter("seed", int)
    started = [
        node(
            Node, "command_gate", {**shared, "dry_run": False, "heartbeats": heartbeats}, on_exit=launching.without_gate
        ),
        node(Node, "pusht_sim", {**shared, "scene": parameter("scene"), "task": instruction, "seed": seed}),
        node(
            LifecycleNode,
            "policy",
            {
                **model,
                **launching.served(),
                "task": instruction,
                "check_instruction": checked,
                "chunking": parameter("chunking"),
            },
        ),
    ]
    managed = ["policy"]
    if watched:
        started.append(node(LifecycleNode, "surprise_monitor", {**model, "calibration": parameter("calibration")}))
        managed.append("surprise_monitor")
    # One process brings the lifecycle nodes up and arms the gate: activation has to be tried until there are pictures.
    bring_up = Node(
        package="vla_policy",
        executable="bring_up",
        arguments=[*managed, "--arm"],
        additional_env=environment(),
        condition=IfCondition(LaunchConfiguration("arm")),
        output="screen",
    )
    return [*started, bring_up, *description(launching.flag(context, "rviz"))]


def description(shown):
    """The arm's transforms and the camera's, and RViz if it is to be shown, all below the simulation's name."""
    contract = load_contract("pusht_sim")
    camera = Camera(PushTConfig().cameras["top"])
    return [
        *launching.robot_state_publisher(find_config("xarm6_pusher", ".urdf", "urdf"), launching.SIM),
        *launching.camera_transform(contract.command.frame_id, "camera_optical", camera.extrinsics, launching.SIM),
        *(launching.rviz(contract, launching.SIM) if shown else []),
    ]


def generate_launch_description():
    return LaunchDescription(entities(ARGUMENTS, nodes))
