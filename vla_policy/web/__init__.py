"""The page in the browser: the live view of a graph, and the datasets. Only `live_node` speaks to ROS."""
