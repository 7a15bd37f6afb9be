"""The `serve-app` command: an HTTP client of the running service, and the check before it runs."""
