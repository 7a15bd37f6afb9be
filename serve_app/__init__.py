"""The Ray Serve runtime that teams put under their LangChain agents when they go to production."""
