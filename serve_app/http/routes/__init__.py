"""The routes of the service: each module has one `router`, which `create_api` adds."""
