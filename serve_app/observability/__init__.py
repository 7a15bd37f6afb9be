"""What the service tells of itself, and what it keeps to itself."""
