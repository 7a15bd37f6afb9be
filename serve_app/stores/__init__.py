"""Clients of Redis and Milvus, and the stores in Redis that several rooms use."""
