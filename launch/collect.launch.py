"""Demonstrations by teleoperation: teleop, the gate and the recorder, on the simulated arm by default.

ros2 launch vla_policy collect.launch.py root:=outputs/mine contract:=pusht_sim

A real arm is sent nothing before dry_run:=false.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription
from vla_policy.graph.launching import flag, gamepad, installed, without_gate
from vla_policy.robot.contract import SIMULATED, load_contract
from vla_policy.utils.starter import environment

ARGUMENTS = {
    "contract": ("pusht_sim", "robot contract: a name in config/ or a file"),
    "root": ("outputs/recordings", "folder of bags and dataset"),
    "instruction": ("", "empty: the contract's, or what the simulation asks for"),
    "sim": ("", "start the simulated arm; empty: where the contract is its"),
    "scene": ("pusht", "of the simulation: pusht, or pusht_language with several goals"),
    "dry_run": ("", "send nothing to the robot; empty: unless it is simulated"),
    "teleop": ("true", "start teleop; false: run it in its own terminal, to use the keyboard"),
    "joy": ("", "start joy_node for a gamepad; empty: where it is installed"),
    "scale": ("0.1", "speed of teleoperation, as a fraction of the contract's limit"),
    "axes": ("[1, 0]", "of the gamepad, one a channel"),
}


def nodes(context, *args, **kwargs):
    def value(name, kind):
        return ParameterValue(LaunchConfiguration(name), value_type=kind)

    def text(name):
        return value(name, str)

    def node(name, parameters, **more):
        return Node(
            package="vla_policy",
            executable=f"{name}_node",
            name=name,
            output="screen",
            parameters=[parameters],
            additional_env=environment(),
            **more,
        )

    contract = {"contract": text("contract")}
    robot = load_contract(LaunchConfiguration("contract").perform(context))
    simulated = robot.robot_type == SIMULATED
    sim, dry_run = flag(context, "sim", simulated), flag(context, "dry_run", not simulated)
    if sim:
        robot.require_simulated()
    led = {**contract, "keyboard": False, "scale": value("scale", float), "axes": value("axes", list[int])}
    none = [""]  # no heartbeats; an empty list has no parameter type
    joy = gamepad() if flag(context, "joy", installed("joy")) else []
    return [
        node("command_gate", {**contract, "dry_run": dry_run, "heartbeats": none}, on_exit=without_gate),
        *([node("pusht_sim", {**contract, "scene": text("scene"), "task": text("instruction")})] if sim else []),
        *([node("teleop", led)] if flag(context, "teleop", True) else []),
        node("recorder", {**contract, "root": text("root"), "task": text("instruction")}),
        *joy,
    ]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=value, description=what) for name, (value, what) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
