"""How do documents become passages, and how are passages found?"""
