"""Deadlines, retries, circuit breakers, rate limits and fair queueing, without I/O of their own."""
