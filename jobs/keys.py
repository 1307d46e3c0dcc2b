"""API keys: stored hashed, shown once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import redis

Role = Literal["user", "admin"]
KEYS = "dmft:keys"


@dataclass(frozen=True)
class User:
    """Whom a key speaks for. Admins see all jobs, users their own."""

    name: str
    role: Role

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True)
class KeyInfo:
    """A key without its secret; `id` is the start of its hash."""

    id: str
    user: User


def _hash(key: str) -> str:
    # Keys are 256 random bits, so a plain hash cannot be searched through.
    return hashlib.sha256(key.encode()).hexdigest()


class KeyStore:
    """API keys in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def create(self, name: str, role: Role = "user") -> str:
        """Make a key for a user. Returns the secret, which is not stored."""
        if not name or ":" in name or len(name) > 64:
            raise ValueError("a user's name has 1 to 64 characters and no colon")
        key = f"dmft_{secrets.token_urlsafe(32)}"
        self.adopt(key, name, role)
        return key

    def adopt(self, key: str, name: str, role: Role) -> None:
        """Register an existing secret, such as the admin key in a file."""
        self._redis.hset(KEYS, _hash(key), f"{role}:{name}")

    def authenticate(self, key: str) -> User | None:
        """The key's user; None for an unknown or revoked key."""
        found = self._redis.hget(KEYS, _hash(key))
        return _user(found) if found else None

    def list(self) -> list[KeyInfo]:
        """All keys, by user."""
        found = self._redis.hgetall(KEYS)
        infos = [KeyInfo(digest[:12], _user(value)) for digest, value in found.items()]
        return sorted(infos, key=lambda info: (info.user.name, info.id))

    def revoke(self, key_id: str) -> bool:
        """Remove the key with this id. False if there is none."""
        if len(key_id) < 8:
            raise ValueError("a key id has 12 characters")
        matching = [digest for digest in self._redis.hkeys(KEYS) if digest.startswith(key_id)]
        return bool(matching) and bool(self._redis.hdel(KEYS, *matching))


def _user(value: str) -> User:
    role, name = value.split(":", 1)
    return User(name, "admin" if role == "admin" else "user")
