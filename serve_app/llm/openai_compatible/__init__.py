"""A lean chat model for OpenAI-compatible endpoints."""
