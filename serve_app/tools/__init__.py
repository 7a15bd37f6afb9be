"""How does a typed function become a tool that a model can call?"""
