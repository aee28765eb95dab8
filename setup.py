"""What ament needs of the package beside pyproject.toml: the files that ROS tools look for under share/, and two fields
that colcon and the setuptools of Ubuntu 24.04 cannot read there.
"""

from glob import glob

from setuptools import setup

PACKAGE = "vla_policy"

setup(
    license="Apache-2.0",
    python_requires=">=3.11",
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
