"""Requests on their way to node 0, and tokens on their way back."""
