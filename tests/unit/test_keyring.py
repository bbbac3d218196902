"""The secrets of a home: found by what the feed says, whatever the files are called and whenever they were made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kad_node.home import Home
from kad_node.keyring import Keyring, fingerprint
from kad_protocol import keys as keyfiles
from kad_protocol.errors import KadError, Reason
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId

if TYPE_CHECKING:
    from pathlib import Path

OWN = FeedId("uji.kad.internal", "kartamantul")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home", "node")
    made.prepare()
    return made


def test_the_right_secret_is_found_by_its_public_keys_alone(home: Home) -> None:
    first = home.create_keys({}).log_signer(OWN.origin).public
    ring = Keyring(home, OWN)
    made = [ring.create() for _ in range(3)]
    # The newest file is not the one that signs, and names and times say nothing.
    for number, path in enumerate(sorted((home.path / "keys").iterdir())):
        os.utime(path, (1_000 + number, 1_000 + number))
    again = Keyring(home, OWN)
    assert again.log_signer(first).public == first
    for log, witness in made:
        assert again.log_signer(log.public).public == log.public
        assert Keyring(home, OWN).witness_signer(witness.public).public == witness.public
    # A file whose name lies is still found.
    wanted, _ = made[1]
    path = home.path / "keys" / f"epoch-0-{fingerprint(wanted.public).hex()[:16]}.key"
    path.rename(path.with_name("epoch-0-0000000000000000.key"))
    assert Keyring(home, OWN).log_signer(wanted.public).public == wanted.public


def test_a_secret_that_is_not_here_is_said(home: Home) -> None:
    ring = Keyring(home, OWN)
    stranger = MemberKeys.generate().log_signer(OWN.origin).public
    with pytest.raises(KadError) as caught:
        ring.log_signer(stranger)
    assert caught.value.reason is Reason.INVALID_FILE
    home.create_keys({})
    with pytest.raises(KadError) as caught:
        ring.log_signer(stranger)
    assert caught.value.reason is Reason.KEY_ROTATION_INVALID


def test_secrets_of_another_epoch_do_not_count(home: Home) -> None:
    home.create_keys({})
    later = FeedId(OWN.federation, OWN.forum, 1)
    signer = home.create_keys({}, 1).log_signer(later.origin).public
    assert Keyring(home, later).log_signer(signer).public == signer
    with pytest.raises(KadError):
        Keyring(home, OWN).log_signer(signer)
    # A file of one epoch under the name of another.
    (home.path / "keys" / "epoch-2.key").write_bytes((home.path / "keys" / "epoch-1.key").read_bytes())
    third = FeedId(OWN.federation, OWN.forum, 2)
    with pytest.raises(KadError) as caught:
        Keyring(home, third).log_signer(
            keyfiles.unseal((home.path / "keys" / "epoch-1.key").read_bytes(), None).log_signer(third.origin).public
        )
    assert caught.value.reason is Reason.KEY_ROTATION_INVALID


def test_a_new_secret_is_durable_private_and_sealed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAD_PASSPHRASE", "rahasia")
    home.create_keys(os.environ)
    log, _ = Keyring(home, OWN).create()
    (path,) = (home.path / "keys").glob(f"*{fingerprint(log.public).hex()[:16]}*")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfiles.unseal(path.read_bytes(), b"rahasia").log_signer(OWN.origin).public == log.public
    monkeypatch.setenv("KAD_PASSPHRASE", "salah")
    with pytest.raises(KadError) as caught:
        Keyring(home, OWN).log_signer(log.public)
    assert caught.value.reason is Reason.INVALID_PASSPHRASE
