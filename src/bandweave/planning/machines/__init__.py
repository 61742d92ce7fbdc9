"""Machines, links and the rates that they reach."""
