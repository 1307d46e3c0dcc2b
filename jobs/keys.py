"""API keys: stored hashed, shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import redis
import redis.asyncio

Role = Literal["user", "admin"]
KEYS = "dmft:keys"
USERS = "dmft:users"
ADMIN = "admin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_RESERVED = frozenset({ADMIN, "administrator", "all", "anonymous", "dmft", "me", "public", "system"})
_ID = re.compile(r"u_[0-9a-f]{24}")


@dataclass(frozen=True)
class User:
    """Whom a key speaks for. Admins see all jobs, users their own.

    Attributes:
        id: what jobs, datasets, idempotency keys and limits belong to; never given twice.
        name: a label for people.
        role: user or admin.
    """

    id: str
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


def check_name(name: str) -> None:
    """Raises ValueError, saying why, for a name that no new user may have."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a user's name has 1 to 64 characters, of A-Z a-z 0-9 . _ @ + - and starts with a letter or digit"
        )
    if name.lower() in _RESERVED or _ID.fullmatch(name.lower()):
        raise ValueError(f"the user's name {name!r} is reserved, choose another")


def _hash(key: str) -> str:
    # Keys are 256 random bits, so a plain hash cannot be searched through.
    return hashlib.sha256(key.encode()).hexdigest()


class KeyStore:
    """API keys in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def create(self, name: str, role: Role = "user") -> str:
        """Make a key for a user, who is made too if new. Returns the secret, which is not stored.

        Raises:
            ValueError: the name is malformed or reserved.
        """
        check_name(name)
        key = f"dmft_{secrets.token_urlsafe(32)}"
        user_id = self.id_of(name)
        if user_id is None:
            # Two at once for one name: the first one's id holds for both.
            self._redis.hsetnx(USERS, name, f"u_{secrets.token_hex(12)}")
            user_id = self._redis.hget(USERS, name)
        self._redis.hset(KEYS, _hash(key), f"{role}:{name}:{user_id}")
        return key

    def adopt_admin(self, key: str) -> None:
        """Register the server's own key, made elsewhere."""
        self._redis.hset(KEYS, _hash(key), f"admin:{ADMIN}:{ADMIN}")

    def id_of(self, name: str) -> str | None:
        """The id of the user with this name; None if there is none.

        Before users had ids their names stood for them: such a user's name remains the id.
        """
        if name == ADMIN:
            return ADMIN
        known: str | None = self._redis.hget(USERS, name)
        if known is not None:
            return known
        if _ID.fullmatch(name.lower()):
            return None
        if self._redis.exists(f"dmft:jobs:{name}") or any(info.user.id == name for info in self.list()):
            return name
        return None

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


async def identify(client: redis.asyncio.Redis, key: str) -> User | None:
    """KeyStore.authenticate, for an event loop."""
    connection: Any = client
    found = await connection.hget(KEYS, _hash(key))
    return _user(found) if found else None


def _user(value: str) -> User:
    role, name, *ids = value.split(":")
    if ids:
        user_id = ids[0]
    elif role != "admin" and name == ADMIN:
        # A key of the time before ids: its holder chose the admin's name, and is not the admin.
        user_id = "u_" + hashlib.sha256(value.encode()).hexdigest()[:24]
    else:
        user_id = name
    return User(user_id, name, "admin" if role == "admin" else "user")
