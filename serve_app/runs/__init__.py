"""How does a run outlive the processes that run and follow it: its log, its owner, its turn in its session?"""
