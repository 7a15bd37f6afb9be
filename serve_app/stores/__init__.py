"""Where do the clients of Redis and Milvus come from, and how do their failures become ours?"""
