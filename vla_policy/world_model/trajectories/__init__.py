"""Agents that denoise their own future: what they share, Diffuser, Decision Diffuser, their guidance."""
