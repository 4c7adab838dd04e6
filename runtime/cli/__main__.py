"""`python -m flashrib.runtime.cli`."""

import sys

from flashrib.runtime.cli import program

if __name__ == "__main__":
    sys.exit(program())
