"""Demonstrations by a person: teleoperation, the gate and the recorder, on the simulated arm unless told otherwise.

ros2 launch vla_policy collect.launch.py root:=outputs/mine contract:=pusht_sim sim:=true
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = {
    "contract": ("pusht_sim", "robot contract: a name in config/ or a file"),
    "root": ("outputs/recordings", "folder of bags and dataset"),
    "instruction": ("", "empty: the contract's"),
    "sim": ("true", "start the simulated arm"),
    "dry_run": ("false", "send nothing to the robot"),
    "joy": ("true", "start joy_node for a gamepad"),
}


def generate_launch_description():
    def text(name):
        return ParameterValue(LaunchConfiguration(name), value_type=str)

    def node(name, parameters, **more):
        return Node(
            package="vla_policy", executable=f"{name}_node", name=name, output="screen", parameters=[parameters], **more
        )

    contract = {"contract": text("contract")}
    dry_run = ParameterValue(LaunchConfiguration("dry_run"), value_type=bool)
    nobody = [""]  # whose silence would stop the arm; a list without any entry has no type
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=what)
                for name, (value, what) in ARGUMENTS.items()
            ),
            node("command_gate", {**contract, "dry_run": dry_run, "heartbeats": nobody}),
            node("pusht_sim", contract, condition=IfCondition(LaunchConfiguration("sim"))),
            node("teleop", {**contract, "keyboard": False}),
            node("recorder", {**contract, "root": text("root"), "task": text("instruction")}),
            Node(package="joy", executable="joy_node", condition=IfCondition(LaunchConfiguration("joy"))),
        ]
    )
