"""How does a request become a turn, and a turn's events an answer? FastAPI only, no Ray, no LangChain."""
