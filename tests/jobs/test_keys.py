from __future__ import annotations

import pytest
import redis

from jobs.keys import KEYS, KeyStore


@pytest.fixture
def keys(redis_client: redis.Redis) -> KeyStore:
    return KeyStore(redis_client)


def test_a_key_speaks_for_its_user_until_revoked(keys: KeyStore) -> None:
    secret = keys.create("ada")
    admin = keys.create("root", "admin")
    user = keys.authenticate(secret)
    assert user is not None
    assert (user.name, user.is_admin) == ("ada", False)
    assert keys.authenticate(admin).is_admin  # type: ignore[union-attr]
    listed = keys.list()
    assert [info.user.name for info in listed] == ["ada", "root"]
    assert keys.revoke(listed[0].id)
    assert keys.authenticate(secret) is None
    assert not keys.revoke(listed[0].id)


def test_secrets_are_not_stored(keys: KeyStore, redis_client: redis.Redis) -> None:
    secret = keys.create("ada")
    stored = redis_client.hgetall(KEYS)
    assert all(secret not in text for pair in stored.items() for text in pair)


def test_unknown_and_malformed_keys(keys: KeyStore) -> None:
    keys.create("ada")
    for key in ("", "dmft_wrong", "x" * 10_000):
        assert keys.authenticate(key) is None
    with pytest.raises(ValueError, match="12 characters"):
        keys.revoke("")
    for name in ("", "a:b", "x" * 65):
        with pytest.raises(ValueError, match="user's name"):
            keys.create(name)
