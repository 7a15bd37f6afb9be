"""How is the service watched: what it counts, what it says, what it traces?"""
