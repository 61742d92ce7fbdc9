"""Fits the planner's factors to published measurements."""
