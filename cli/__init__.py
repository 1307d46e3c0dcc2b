"""The `dmft` command: one module for each subcommand, imported when it is used."""
