"""A lean client for endpoints that speak OpenAI's chat completions."""
