"""What runs as a process of its own: one file per deployment, and the way from one to another."""
