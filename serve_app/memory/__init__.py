"""Conversation memory: what a session keeps of its turns, and what the model reads again."""
