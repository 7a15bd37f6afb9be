"""Who may run a session's turn?"""
