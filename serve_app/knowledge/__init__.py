"""The knowledge base: documents become passages, and a search finds passages."""
