"""The `mole` command."""
