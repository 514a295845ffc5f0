"""`python -m melcli` is `melcli`."""

from melcli.cli import main

main()
