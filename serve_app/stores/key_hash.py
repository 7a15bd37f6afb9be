"""The form of an API key, and the hash of its secret.

    sa_ID_SECRET    ID: 16 hexadecimal digits, by which the key is found; SECRET: 256 random bits in base64url

Only a salt and SHA-256 over salt and secret are stored. A slow hash is for passwords, which people choose and others
guess; nobody guesses 256 random bits, and checking them must cost a request only microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cached_property

from serve_app.values import ApiKey, Caller, NewApiKey

PREFIX = "sa"
_ID_BYTES, _SALT_BYTES, _SECRET_BYTES = 8, 16, 32
_NO_DIGEST = "0" * 64


class StoredKey(ApiKey):
    """An API key as Redis has it, with the hash of its secret."""

    salt: str
    digest: str

    @property
    def public(self) -> ApiKey:
        """The key without salt and hash."""
        return ApiKey(**{name: getattr(self, name) for name in ApiKey.model_fields})

    @cached_property
    def caller(self) -> Caller:
        """The caller that this key identifies."""
        return Caller(tenant=self.tenant, key_id=self.id, scopes=self.scopes, limits=self.limits)

    @classmethod
    def from_new_key(cls, key: NewApiKey) -> StoredKey:
        """Return what is stored of a new key."""
        salt = secrets.token_hex(_SALT_BYTES)
        fields = {name: getattr(key, name) for name in ApiKey.model_fields}
        return cls(**fields, salt=salt, digest=_digest(salt, parse_secret(key.key)))


def create_key_id() -> str:
    """Return a new random id."""
    return secrets.token_hex(_ID_BYTES)


def create_key(key_id: str) -> str:
    """Return a new key with this id."""
    return f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def parse_key_id(key: str) -> str:
    """Return the id in a key that a client sent; empty if there is none."""
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def parse_secret(key: str) -> str:
    """Return the secret in a key."""
    return key.split("_", 2)[-1]


def verify_key(key: str, stored: StoredKey | None) -> bool:
    """Return whether `key` is the stored key; None takes as long as a wrong one."""
    found = _digest(stored.salt if stored else _NO_DIGEST[:32], parse_secret(key))
    return hmac.compare_digest(found, stored.digest if stored else _NO_DIGEST) and stored is not None


def equal_keys(key: str, other: str) -> bool:
    """Return whether two keys are equal, in a time that does not depend on them."""
    return hmac.compare_digest(_digest("", key), _digest("", other))


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode("utf-8", "surrogatepass")).hexdigest()
