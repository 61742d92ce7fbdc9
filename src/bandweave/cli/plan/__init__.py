"""The command ``plan``."""

from bandweave.cli.plan.plan import command as command
