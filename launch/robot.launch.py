"""A real arm: its driver and cameras run already. Nothing is brought up or armed by itself; see docs/how_to/new_arm.md.

ros2 launch vla_policy robot.launch.py contract:=xarm6 checkpoint:=CHECKPOINT dry_run:=true
"""

from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchDescription
from vla_policy.graph import launching
from vla_policy.graph.launching import entities, node, parameter
from vla_policy.robot.contract import find_config, load_contract

ARGUMENTS = {
    "contract": ("xarm6", "robot contract: a name in config/ or a file"),
    "checkpoint": ("", "folder or hub name; empty: the server's, without one checkpoints/pusht_image"),
    "server": ("", "ws:// or wss:// address of a vla-serve that computes the chunks; empty: this computer"),
    "jpeg": ("0", "quality of the pictures that the server gets, 1 to 95; 0: as they are"),
    "policy_params": ("", "YAML file of more parameters of policy, such as those of its planner; empty: none"),
    "instruction": ("", "empty: the contract's"),
    "check_instruction": ("true", "the policy requests a stop for an instruction that it does not understand"),
    "chunking": ("async", "while a chunk is computed: async, wait, ensemble or rtc"),
    "calibration": ("", "folder of a calibrated surprise monitor, with chunking:=async; empty: none runs"),
    "dry_run": ("true", "send nothing to the robot"),
    "device": ("cpu", "auto, cpu or cuda"),
    "draft": ("", "checkpoint of a smaller policy that drafts action tokens on another core; empty: none"),
    "compile": ("false", "compile the policy before it is ready, for faster chunks; needs a C++ compiler"),
    "joy": ("false", "start joy_node and teleop: a gamepad takes over, resumes and stops"),
    "web": ("false", "serve the page in the browser; it leads by hand unless a gamepad does"),
    "host": ("127.0.0.1", "of the page; another than this computer's own is encrypted and asks for the token"),
    "urdf": ("", "robot description to publish, a name in urdf/ or a file; empty: the driver does it"),
    "rviz": ("false", "show camera, arm and target in RViz"),
}


def nodes(context, *args, **kwargs):
    robot = load_contract(LaunchConfiguration("contract").perform(context))  # before anything is started
    shared = {"contract": parameter("contract")}
    model = {**shared, "checkpoint": parameter("checkpoint")}
    watched = launching.watched(context)
    heartbeats = ["policy/stop", "surprise_monitor/stop"] if watched else ["policy/stop"]
    more = LaunchConfiguration("policy_params").perform(context)
    checked, dry_run = parameter("check_instruction", bool), parameter("dry_run", bool)
    started = [
        node(
            Node,
            "command_gate",
            {**shared, "dry_run": dry_run, "heartbeats": heartbeats},
            on_exit=launching.without_gate,
        ),
        node(
            LifecycleNode,
            "policy",
            {
                **model,
                **launching.served(),
                "device": parameter("device"),
                "draft": parameter("draft"),
                "compile": parameter("compile", bool),
                "task": parameter("instruction"),
                "check_instruction": checked,
                "chunking": parameter("chunking"),
            },
            [more] if more else [],
        ),
    ]
    if watched:
        started.append(node(LifecycleNode, "surprise_monitor", {**model, "calibration": parameter("calibration")}))
    joy = launching.flag(context, "joy")
    if launching.flag(context, "web"):
        started.append(node(Node, "web", {**shared, "control": not joy, "host": parameter("host")}))
    if joy:
        started.append(node(Node, "teleop", {**shared, "keyboard": False}))
        started += launching.gamepad()
    urdf = LaunchConfiguration("urdf").perform(context)
    if urdf:
        launching.require("robot_state_publisher", "urdf")
        started += launching.robot_state_publisher(find_config(urdf, ".urdf", "urdf"))
    if launching.flag(context, "rviz"):
        started += launching.rviz(robot)
    return started


def generate_launch_description():
    return LaunchDescription(entities(ARGUMENTS, nodes))
