"""A policy on another computer: `server.PolicyServer` computes chunks, `client.RemotePolicy` is the policy on the robot.

One websocket carries typed tensors, see `protocol`. The gate, limits, watchdogs and the monitor stay on the robot.
"""
