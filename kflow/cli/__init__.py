"""The command line: a module per command parses arguments, calls what is below, returns an exit code."""
