"""ASGI middleware; `http/app.py` lists it in its order, `deployments/guards.py` that of Serve's proxies."""
