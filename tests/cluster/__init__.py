"""Clusters of machines that have networks and files of their own."""
