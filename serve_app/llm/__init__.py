"""How does a name become a chat model that fails in our terms?"""
