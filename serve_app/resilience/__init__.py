"""Deadlines, retries, circuit breakers, rate limits and fair queueing, as values and loops without I/O of their own."""
