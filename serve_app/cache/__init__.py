"""The answer cache in Redis, with single-flight over all agents."""
