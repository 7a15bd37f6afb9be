"""Chat models: built by name, guarded, with fallbacks."""
