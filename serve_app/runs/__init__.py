"""Runs: durable turns, with an event log, workers and failover."""
