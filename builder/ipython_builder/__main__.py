"""``python -m ipython_builder``: the command line."""

from ipython_builder.cli import main

if __name__ == "__main__":
    main()
