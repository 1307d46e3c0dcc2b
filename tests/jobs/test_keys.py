from __future__ import annotations

import hashlib

import pytest
import redis

from jobs.keys import KEYS, KeyStore, User


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


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a:b",
        "x" * 65,
        "\u540d" * 64,
        "*",
        "a b",
        "a/b",
        "..",
        "ada\n",
        "-ada",
        "\uff41da",
        "admin",
        "Admin",
        "ADMIN",
        "system",
        "u_" + "0" * 24,
        "U_" + "A" * 24,
    ],
)
def test_names_that_no_user_may_have(keys: KeyStore, redis_client: redis.Redis, name: str) -> None:
    for role in ("user", "admin"):
        with pytest.raises(ValueError, match="user's name"):
            keys.create(name, role)  # type: ignore[arg-type]
    assert redis_client.dbsize() == 0


def test_a_user_has_one_id_which_is_not_the_name(keys: KeyStore) -> None:
    first, second = (keys.authenticate(keys.create("ada")) for _ in range(2))
    other = keys.authenticate(keys.create("Ada"))
    assert first is not None
    assert other is not None
    assert first == second
    assert len({first.id, other.id, "ada", "Ada"}) == 4
    assert keys.id_of("ada") == first.id
    assert keys.id_of(first.id) is None  # an id is no name
    for info in keys.list():
        keys.revoke(info.id)
    assert keys.authenticate(keys.create("ada")) == first


def test_users_of_the_time_before_ids_keep_their_names_as_ids(
    keys: KeyStore, redis_client: redis.Redis
) -> None:
    """Keys were kept as `role:name` once, and jobs under names."""

    def old_key(secret: str, value: str) -> User:
        redis_client.hset(KEYS, hashlib.sha256(secret.encode()).hexdigest(), value)
        user = keys.authenticate(secret)
        assert user is not None
        return user

    assert old_key("1", "user:ada") == User("ada", "ada", "user")
    assert old_key("2", "admin:admin") == User("admin", "admin", "admin")
    assert keys.authenticate(keys.create("ada")) == User("ada", "ada", "user")
    # Their last key revoked, their jobs still there:
    redis_client.zadd("dmft:jobs:eve", {"s_1": 1})
    assert keys.authenticate(keys.create("eve")) == User("eve", "eve", "user")
    # One who had chosen the admin's name is somebody else now.
    impostor = old_key("3", "user:admin")
    assert (impostor.name, impostor.is_admin) == ("admin", False)
    assert impostor.id != keys.id_of("admin") == "admin"
