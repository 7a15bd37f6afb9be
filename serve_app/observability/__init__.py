"""Metrics, logs and traces of the service, and the redaction of what they hold."""
