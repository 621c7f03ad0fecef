"""The program, as the tests of the command line have it."""

from tests.cli.conftest import place, program

__all__ = ["place", "program"]
