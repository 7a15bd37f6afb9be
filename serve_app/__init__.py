"""The Ray Serve runtime under LangChain agents in production."""
