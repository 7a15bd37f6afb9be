"""Which answer was given to the same question before, and who is answering it now?"""
