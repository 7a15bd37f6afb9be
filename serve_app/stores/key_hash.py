"""What does a key look like, and how is it known again without being kept?

    sa_ID_SECRET    ID: 16 hexadecimal digits, by which a key is found; SECRET: 256 random bits in base64url

What is kept of a secret is SHA-256 over a salt of its own and the secret. A slow hash is for passwords, which people
choose and others guess; nobody guesses 256 random bits, and each request is to cost microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cached_property

from serve_app.values import ApiKey, Caller, NewApiKey

PREFIX = "sa"
_ID_BYTES, _SALT_BYTES, _SECRET_BYTES = 8, 16, 32
_NOBODY = "0" * 64


class StoredKey(ApiKey):
    """A key as it is kept."""

    salt: str
    digest: str

    @property
    def public(self) -> ApiKey:
        """What may be told of it."""
        return ApiKey(**{name: getattr(self, name) for name in ApiKey.model_fields})

    @cached_property
    def caller(self) -> Caller:
        """Whoever shows it."""
        return Caller(tenant=self.tenant, key_id=self.id, scopes=self.scopes, limits=self.limits)

    @classmethod
    def of(cls, key: NewApiKey) -> StoredKey:
        """What is kept of a key that was just made."""
        salt = secrets.token_hex(_SALT_BYTES)
        fields = {name: getattr(key, name) for name in ApiKey.model_fields}
        return cls(**fields, salt=salt, digest=_digest(salt, parse_secret(key.key)))


def create_key_id() -> str:
    """An id that no other key has."""
    return secrets.token_hex(_ID_BYTES)


def create_key(key_id: str) -> str:
    """A key of this id."""
    return f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def parse_key_id(key: str) -> str:
    """The id in what a client sent as a key; empty where there is none."""
    prefix, _, rest = key.partition("_")
    return rest.partition("_")[0] if prefix == PREFIX else ""


def parse_secret(key: str) -> str:
    """The rest of it."""
    return key.split("_", 2)[-1]


def verify_key(key: str, stored: StoredKey | None) -> bool:
    """Whether this is the stored key; none at all takes as long as a wrong one."""
    found = _digest(stored.salt if stored else _NOBODY[:32], parse_secret(key))
    return hmac.compare_digest(found, stored.digest if stored else _NOBODY) and stored is not None


def equal_keys(key: str, other: str) -> bool:
    """Whether two keys are the same, in a time that tells nothing of where they differ or how long they are."""
    return hmac.compare_digest(_digest("", key), _digest("", other))


def _digest(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode("utf-8", "surrogatepass")).hexdigest()
