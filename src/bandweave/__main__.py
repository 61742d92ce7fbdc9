"""``python -m bandweave``: the command line."""

from bandweave.cli.main import main

if __name__ == "__main__":
    main()
