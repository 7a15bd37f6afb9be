"""How is one turn run?"""
