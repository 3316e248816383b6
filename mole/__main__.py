"""`python -m mole`: the command `mole`, where no script directory is on the path."""

from mole.cli.main import main

if __name__ == "__main__":
    main()
