"""The agent: one turn, from the user's message to the answer."""
