"""bandweave weaves the memory bandwidth of several machines into one."""

__version__ = "0.1.0"
NUMERICS_VERSION = 2
