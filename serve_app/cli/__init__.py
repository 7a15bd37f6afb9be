"""The command line `serve-app`: a client of the running service, and its check."""
