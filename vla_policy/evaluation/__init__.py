"""Evaluation of policies and world models: success rates and their intervals, a folder per study."""
