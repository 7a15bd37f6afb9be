"""Is a port on loopback free, and does a store answer on it?"""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
ANSWER_S = 1.0
"""Far above a healthy server's milliseconds; a Milvus Lite that works on one search answers the next call late."""


def is_free(port: int) -> bool:
    """Whether no server listens on `port`; connections of a server that just died do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def redis_answers(port: int) -> bool:
    """Whether Redis has its data loaded and serves commands."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    client = Redis(HOST, port, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0))
    with client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def milvus_answers(port: int) -> bool:
    """Whether Milvus serves calls; asked without pymilvus, which would cost this process 100 MB."""
    import grpc

    # An empty message is a valid request, and the answer's bytes say enough; a proxy has no business on loopback.
    with grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=ANSWER_S)
        except grpc.RpcError:
            return False
    return True
