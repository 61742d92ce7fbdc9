"""Measures machines and links for the planner."""
