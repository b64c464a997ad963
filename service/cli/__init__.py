"""The command line; `main` is the composition root. One module per command."""
