"""The HTTP API: middleware, routes and responses; FastAPI without Ray and LangChain."""
