"""The deployments of Ray Serve, one file each, and the way from one to another."""
