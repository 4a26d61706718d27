from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.contract.errors import InvalidParameter, NotFound
from planish.store.audit import FILE, Audit, check_chain
from planish.store.keys import Keys, Scope


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def test_only_the_hash_of_a_key_is_stored(keys: Keys, tmp_path: Path) -> None:
    new = keys.create("ci", "acme", (Scope.READ,))
    stored = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert new.secret not in stored
    assert new.secret.split("_")[2][:64] not in stored
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))


def test_a_key_is_found_by_its_holder_alone(keys: Keys) -> None:
    first, second = keys.create("a"), keys.create("b")
    assert keys.find(first.secret) == first.record
    mixed = first.record.id.join(second.secret.split(second.record.id))
    assert keys.find(mixed) is None


@given(
    text=st.text(max_size=120), cut=st.integers(0, 119), letter=st.sampled_from("0123456789abcdef")
)
def test_no_other_text_is_a_key(tmp_path_factory, text: str, cut: int, letter: str) -> None:
    keys = Keys(tmp_path_factory.getbasetemp() / "keys-any-text")
    secret = keys.create("x").secret
    assert keys.find(text) is None
    changed = secret[:cut] + letter + secret[cut + 1 :]
    assert (keys.find(changed) is None) == (changed != secret)


def test_states_follow_expiry_and_revocation(keys: Keys) -> None:
    now = datetime.now(UTC)
    record = keys.create("short", lifetime=timedelta(hours=1)).record
    assert record.state(now) == "live"
    assert record.state(now + timedelta(hours=2)) == "expired"
    assert keys.revoke(record.id).state(now) == "revoked"


def test_another_process_sees_a_revocation_at_once(keys: Keys, tmp_path: Path) -> None:
    new, other = keys.create("x"), Keys(tmp_path)
    assert other.find(new.secret) is not None
    keys.revoke(new.record.id)
    found = other.find(new.secret)
    assert found is not None
    assert found.revoked_at is not None


def test_rotation_keeps_rights_and_ends_the_old_key_after_the_grace(keys: Keys) -> None:
    old = keys.create("ci", "acme", (Scope.READ,), timedelta(days=30))
    new = keys.rotate(old.record.id, timedelta(hours=1))
    assert (new.record.tenant, new.record.scopes) == ("acme", (Scope.READ,))
    ended = keys.current(old.record.id)
    assert ended is not None
    assert ended.state(datetime.now(UTC) + timedelta(minutes=50)) == "live"
    assert ended.state(datetime.now(UTC) + timedelta(minutes=70)) == "expired"
    with pytest.raises(InvalidParameter, match="make a new one"):
        keys.rotate(keys.revoke(old.record.id).id, timedelta(hours=1))


@pytest.mark.parametrize("tenant", ["", "../up", "A", "a" * 64, "a/b", "-a", "a.b"])
def test_a_tenant_that_could_be_a_path_is_refused(keys: Keys, tenant: str) -> None:
    with pytest.raises(InvalidParameter, match="no tenant"):
        keys.create("x", tenant)


@pytest.mark.parametrize("key_id", ["", "../../etc/passwd", "zz", "0" * 10])
def test_unknown_ids_are_not_found(keys: Keys, key_id: str) -> None:
    with pytest.raises(NotFound):
        keys.revoke(key_id)


def test_the_audit_log_shows_every_kind_of_tampering(tmp_path: Path) -> None:
    for number in range(5):
        Audit(tmp_path).record("job.submitted", tenant="t", key_id=None, target=f"job {number}")
    assert check_chain(tmp_path) is None
    path = tmp_path / FILE
    lines = path.read_text().splitlines(keepends=True)
    changed = json.dumps({**json.loads(lines[1]), "target": "job 9"}) + "\n"
    for tampered, line in (
        ([lines[0], changed, *lines[2:]], 3),
        ([lines[0], *lines[2:]], 2),
        ([*lines[:3], lines[2], *lines[3:]], 4),
        (["nonsense\n", *lines[1:]], 1),
    ):
        path.write_text("".join(tampered))
        broken = check_chain(tmp_path)
        assert broken is not None
        assert broken.line == line


def test_a_line_break_in_a_target_stays_one_line(tmp_path: Path) -> None:
    Audit(tmp_path).record("x", tenant="t", key_id=None, target='a\nb"}\n{"forged": 1}')
    assert len((tmp_path / FILE).read_text().splitlines()) == 1
