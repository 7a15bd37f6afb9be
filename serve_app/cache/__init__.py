"""The answer cache in Redis: stored answers, and single-flight over all agents for those being made."""
