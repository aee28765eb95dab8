"""Demonstrations by teleoperation: teleop, the gate and the recorder, on the simulated arm by default.

ros2 launch vla_policy collect.launch.py root:=outputs/mine contract:=pusht_sim

A real arm is sent nothing before dry_run:=false.
"""

from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription
from vla_policy.graph.launching import entities, flag, gamepad, installed, node, parameter, without_gate
from vla_policy.robot.contract import SIMULATED, load_contract

ARGUMENTS = {
    "contract": ("pusht_sim", "robot contract: a name in config/ or a file"),
    "root": ("outputs/recordings", "folder of bags and dataset"),
    "instruction": ("", "empty: the contract's, or what the simulation asks for"),
    "sim": ("", "start the simulated arm; empty: where the contract is its"),
    "scene": ("pusht", "of the simulation: pusht, or pusht_language with several goals"),
    "dry_run": ("", "send nothing to the robot; empty: unless it is simulated"),
    "teleop": ("true", "start teleop; false: run it in its own terminal, to use the keyboard"),
    "web": ("false", "serve the page in the browser, which leads in place of teleop and joy"),
    "host": ("127.0.0.1", "of the page; another than this computer's own is encrypted and asks for the token"),
    "joy": ("", "start joy_node for a gamepad; empty: where it is installed"),
    "scale": ("0.1", "speed of teleoperation, as a fraction of the contract's limit"),
    "axes": ("[1, 0]", "of the gamepad, one a channel"),
}


def nodes(context, *args, **kwargs):
    contract, instruction = {"contract": parameter("contract")}, parameter("instruction")
    robot = load_contract(LaunchConfiguration("contract").perform(context))
    simulated = robot.robot_type == SIMULATED
    sim, dry_run = flag(context, "sim", simulated), flag(context, "dry_run", not simulated)
    if sim:
        robot.require_simulated()
    led = {**contract, "keyboard": False, "scale": parameter("scale", float), "axes": parameter("axes", list[int])}
    nobody = [""]  # whose silence would stop the arm; a list without any entry has no type
    web = flag(context, "web")  # the gate takes targets from one node
    page = {**contract, "control": True, "host": parameter("host"), "scale": parameter("scale", float)}
    joy = gamepad() if not web and flag(context, "joy", installed("joy")) else []
    return [
        node(Node, "command_gate", {**contract, "dry_run": dry_run, "heartbeats": nobody}, on_exit=without_gate),
        *([node(Node, "pusht_sim", {**contract, "scene": parameter("scene"), "task": instruction})] if sim else []),
        *([node(Node, "web", page)] if web else []),
        *([node(Node, "teleop", led)] if not web and flag(context, "teleop", True) else []),
        node(Node, "recorder", {**contract, "root": parameter("root"), "task": instruction}),
        *joy,
    ]


def generate_launch_description():
    return LaunchDescription(entities(ARGUMENTS, nodes))
