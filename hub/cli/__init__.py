"""The command line: sets up, starts, watches and stops an installation, and seeds a demonstration."""
