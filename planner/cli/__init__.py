"""The `plan` command line: one file a command, `context` builds adapters, `render` formats."""
