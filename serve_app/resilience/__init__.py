"""How long, how often, and when not? Values and loops without I/O of their own."""
