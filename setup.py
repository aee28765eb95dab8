"""ament_python and pip install the package alike; versions are pinned in requirements.txt."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "vla_policy"
HERE = Path(__file__).parent
NODES = [
    "command_gate",
    "policy",
    "pusht_sim",
    "recorder",
    "surprise_monitor",
    "teleop",
]  # ros2 run vla_policy ..._node

setup(
    name=PACKAGE,
    version="0.1.0",
    description="A few demonstrations in, a ROS 2 robot policy that sees, acts in real time and knows when to stop",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="vla_policy maintainers",
    maintainer_email="maintainers@vla-policy.org",
    python_requires=">=3.11",
    packages=find_packages(include=["vla_policy", "vla_policy.*", "sim", "sim.*"]),
    package_data={"vla_policy.conf": ["*.yaml", "*/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{PACKAGE}/config", sorted(glob("config/*"))),
        (f"share/{PACKAGE}/rviz", sorted(glob("rviz/*"))),
        (f"share/{PACKAGE}/urdf", sorted(glob("urdf/*"))),
    ],
    zip_safe=True,
    install_requires=[
        "accelerate",
        "av",
        "diffusers",
        "gymnasium",
        "huggingface_hub",
        "hydra-core>=1.3",
        "matplotlib",
        "numpy",
        "peft",
        "pillow",
        "psutil",
        "pyarrow",
        'pybullet; python_version < "3.12"',
        'pybullet-arm64; python_version >= "3.12"',  # the same module; PyBullet itself has no wheels for these
        "rich",
        "safetensors",
        "scipy",
        "shapely",
        "tensorboard",
        "tokenizers",
        "torch",
        "transformers>=5.23",
    ],
    extras_require={
        # Not wanted where ROS 2 is installed. Names that begin with "ros-" alone are those of other distributions.
        "ros": [
            "mcap",
            "rosbags",
            "ros-jazzy-rclpy[fastrtps]",
            "ros-jazzy-std-msgs",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-trajectory-msgs",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-std-srvs",
        ],
        "bags": ["mcap", "rosbags"],
        "ik": ["daqp", "pin-pink"],
        "mouse": ["opencv-python"],
        "gym_pusht": ["gym-pusht"],
        "zarr": ["zarr"],
        "wandb": ["wandb"],
        "test": ["gym-pusht", "import-linter", "mypy", "pytest<9.2", "pytest-timeout", "pytest-xdist", "ruff", "zarr"],
    },
    entry_points={
        "console_scripts": [
            "vla-dataset = vla_policy.cli.dataset:main",
            "vla-collect = vla_policy.cli.collect:main",
            "vla-train = vla_policy.cli.train:main",
            "vla-eval = vla_policy.cli.eval:main",
            "vla-describe = vla_policy.cli.describe:main",
            "vla-calibrate = vla_policy.cli.calibrate:main",
            "vla-bench = vla_policy.cli.bench:main",
            "vla-sim = vla_policy.cli.sim:main",
            f"bring_up = {PACKAGE}.nodes.bring_up:main",
            *(f"{name}_node = {PACKAGE}.nodes.{name}_node:main" for name in NODES),
        ],
    },
)
