"""The chat completions of OpenAI's API, over the same agent."""
