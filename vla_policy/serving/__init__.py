"""A policy on another computer: `server.PolicyServer` computes chunks, `client.RemotePolicy` is the robot's policy.

One websocket carries typed tensors, see `protocol`. The gate, limits, watchdogs and the monitor stay on the robot.
"""
