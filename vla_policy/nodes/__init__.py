"""The ROS 2 graph: thin nodes around `runtime`, standard messages only. See docs/reference/ros.md."""

try:
    import rclpy  # noqa: F401
except ImportError:
    raise ImportError(
        "rclpy: expected a sourced ROS 2 Jazzy, or its wheels (pip install -e '.[ros]'), found neither"
    ) from None
