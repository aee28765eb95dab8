"""What ament needs of the package beside pyproject.toml: the files that ROS tools look for under share/."""

from glob import glob

from setuptools import setup

PACKAGE = "vla_policy"

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *(
            (f"share/{PACKAGE}/{folder}", sorted(glob(f"{folder}/*")))
            for folder in ("launch", "config", "rviz", "urdf")
        ),
    ],
    zip_safe=False,
)
