"""Runs: the durable event log of each turn, the worker that executes runs, and failover to another worker."""
