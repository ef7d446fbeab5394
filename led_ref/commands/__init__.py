"""What the subcommands of `led-ref` do. cli.py reads the command line and calls one function here."""
