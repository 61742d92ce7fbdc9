"""``python -m bandweave`` and the command ``bandweave``: the command line, loaded with care."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line. Ctrl-C ends it without a word even while it is being loaded."""
    try:
        from bandweave.cli.standard_streams import open_standard_streams

        open_standard_streams()
        from bandweave.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
