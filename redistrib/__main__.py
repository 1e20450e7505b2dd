"""`python -m redistrib` is the command `redistrib`."""

from redistrib.cli import main

main()
