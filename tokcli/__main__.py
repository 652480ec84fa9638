"""``python -m tokcli``."""

from tokcli.cli.app import main

if __name__ == "__main__":
    main()
