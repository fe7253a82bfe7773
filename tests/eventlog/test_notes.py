"""Signed notes: the specification's vectors, and everything a note may not be."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from eventlog.transparency.notes import (
    NOTE_BYTES_MAX,
    SIGNATURES_MAX,
    Note,
    Signature,
    SignatureKind,
    SigningKey,
    VerifierKey,
    sign_note,
)

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n"
    "\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3m"
    "FXmRKuwHjG1Yu72IneyaQM=\n"
)
TEXT = "heddle.example/plant-1\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
LOG = SigningKey.generate("heddle.example/plant-1")
WITNESS = SigningKey.generate("witness.example/w1", SignatureKind.COSIGNATURE)


def test_the_published_note_verifies_under_the_published_key() -> None:
    key = VerifierKey.parse(VKEY)
    note = Note.parse(NOTE)
    (good,) = note.verify([key])
    assert (good.key, good.time_s) == (key, None)
    assert note.text == "This is an example message.\n"
    assert note.written == NOTE
    assert key.vkey == VKEY
    assert key.key_id.hex() == "530d903a"


def test_a_changed_text_is_rejected() -> None:
    with pytest.raises(InvalidInput) as refused:
        Note.parse(NOTE.replace("example message", "exemplary message")).verify(
            [VerifierKey.parse(VKEY)]
        )
    assert (refused.value.code, refused.value.value) == ("note.signature_bad", VKEY)


def test_signatures_of_unknown_keys_are_ignored_even_with_the_same_name() -> None:
    namesake = SigningKey.generate(LOG.name)
    note = sign_note(TEXT, [namesake, LOG, SigningKey.generate("other.example")])
    assert [good.key for good in note.verify([LOG.verifier])] == [LOG.verifier]


def test_an_unknown_signature_may_be_of_any_kind_and_length() -> None:
    note = sign_note(TEXT, [LOG])
    odd = Note(TEXT, (Signature("oid/1.3.6", b"\0\0\0\1", b"x" * 5000), *note.signatures))
    assert len(Note.parse(odd.written).verify([LOG.verifier])) == 1


def test_a_bad_signature_of_a_known_key_rejects_the_note_beside_a_good_one() -> None:
    good = sign_note(TEXT, [LOG, WITNESS])
    forged = Signature(WITNESS.name, WITNESS.verifier.key_id, good.signatures[0].value)
    note = Note(TEXT, (good.signatures[0], forged))
    with pytest.raises(InvalidInput) as refused:
        note.verify([LOG.verifier, WITNESS.verifier])
    assert refused.value.code == "note.signature_bad"
    assert len(note.verify([LOG.verifier])) == 1


def test_without_a_signature_by_a_known_key_a_note_is_rejected() -> None:
    with pytest.raises(InvalidInput) as refused:
        sign_note(TEXT, [LOG]).verify([VerifierKey.parse(VKEY)])
    assert refused.value.code == "note.unsigned"
    assert LOG.name in refused.value.message


def test_sixteen_signatures_and_more_are_accepted_and_too_many_are_not() -> None:
    others = [SigningKey.generate(f"witness.example/{n}") for n in range(SIGNATURES_MAX - 1)]
    note = Note.parse(sign_note(TEXT, [*others, LOG]).written)
    assert len(note.signatures) == SIGNATURES_MAX >= 16
    assert len(note.verify([LOG.verifier])) == 1
    with pytest.raises(InvalidInput) as refused:
        Note.parse(sign_note(TEXT, [*others, LOG, LOG]).written)
    assert (refused.value.code, refused.value.value) == ("note.too_large", SIGNATURES_MAX + 1)


# --- cosignatures -------------------------------------------------------------------------


def test_a_cosignature_says_when_and_is_checked_with_the_time() -> None:
    note = Note(TEXT, (LOG.sign(TEXT), WITNESS.sign(TEXT, time_s=1_679_315_147)))
    good = note.verify([LOG.verifier, WITNESS.verifier])
    assert [(g.key.name, g.time_s) for g in good] == [
        (LOG.name, None),
        (WITNESS.name, 1_679_315_147),
    ]
    raw = note.signatures[1].value
    for changed in (b"\0" * 8 + raw[8:], b"\xff" * 8 + raw[8:], raw[:-1], raw[8:]):
        forged = Note(TEXT, (Signature(WITNESS.name, WITNESS.verifier.key_id, changed),))
        with pytest.raises(InvalidInput) as refused:
            forged.verify([WITNESS.verifier])
        assert refused.value.code == "note.signature_bad"


def test_the_cosigned_message_is_the_specification_s() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = WITNESS.sign(TEXT, time_s=1_679_315_147).value
    Ed25519PublicKey.from_public_bytes(WITNESS.verifier.public).verify(
        signature[8:], b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    )
    assert int.from_bytes(signature[:8], "big") == 1_679_315_147


def test_the_same_key_bytes_have_another_id_as_a_witness() -> None:
    as_log = SigningKey(WITNESS.name, SignatureKind.ED25519, WITNESS.seed)
    assert as_log.verifier.key_id != WITNESS.verifier.key_id
    assert VerifierKey.parse(WITNESS.verifier.vkey) == WITNESS.verifier


# --- keys ---------------------------------------------------------------------------------


def test_a_signing_key_is_read_back_and_not_shown() -> None:
    assert SigningKey.parse(LOG.text + "\n") == LOG
    assert LOG.text.startswith(f"PRIVATE+KEY+{LOG.name}+{LOG.verifier.key_id.hex()}+")
    secret = base64.b64encode(b"\x01" + LOG.seed).decode()
    assert secret in LOG.text
    assert secret[4:] not in repr(LOG)
    assert "seed" not in repr(LOG)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "example.com/foo",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("example.com/foo", "example.com/bar"),
        VKEY.replace("example.com/foo", "example.com foo"),
        VKEY[:-4],
        VKEY + "AAAA",
        VKEY.replace("+AekyeRrm", "+BekyeRrm"),
        VKEY.replace("AekyeRrm", "Aeky*Rrm"),
    ],
)
def test_a_malformed_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        VerifierKey.parse(vkey)
    assert refused.value.code == "key.malformed"


@pytest.mark.parametrize(
    "text",
    ["", VKEY, LOG.text.replace("plant-1", "plant-2"), LOG.text[:-4]],
    ids=["empty", "of a verifier", "of another name", "cut short"],
)
def test_a_malformed_signing_key_is_refused_without_its_secret(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        SigningKey.parse(text)
    assert refused.value.code == "key.malformed"
    assert text[-20:] not in str(refused.value) or not text


@pytest.mark.parametrize("name", ["", "a+b", "a b", "a\u00a0b", "a\nb", "a\x01b", "x" * 256])
def test_what_cannot_name_a_key(name: str) -> None:
    with pytest.raises(InvalidInput):
        SigningKey.generate(name)


# --- what is no note ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "",
        "text\n",
        "text\n\n",
        NOTE[:-1],
        NOTE.replace("\u2014", "-"),
        NOTE.replace("\u2014 ", "\u2014"),
        NOTE.replace("=\n", "\n"),
        NOTE.replace("=\n", "= \n"),
        NOTE.replace("This", "Th\tis"),
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("example.com/foo ", "example.com/foo  "),
        NOTE + "more\n",
        "text\n\n\u2014 name AAAAAA==\n".replace("AAAAAA==", "AAAAAA"),
        "text\n\n\u2014 name AAAAAQ==\n".replace("AAAAAQ==", "AAAAAA=="[:4]),
        NOTE.encode() + b"\xff\n",
        "half a \ud83d\n\n\u2014 name AAAAAAAA\n",
    ],
)
def test_what_is_no_note_is_refused(written: str | bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        Note.parse(written)
    assert refused.value.code == "note.malformed"


def test_a_note_has_a_limit() -> None:
    with pytest.raises(InvalidInput) as refused:
        Note.parse("x" * NOTE_BYTES_MAX + NOTE)
    assert refused.value.code == "note.too_large"


def test_an_empty_line_in_the_text_belongs_to_the_text() -> None:
    text = "one\n\ntwo\n"
    note = Note.parse(sign_note(text, [LOG]).written)
    assert note.text == text
    assert note.verify([LOG.verifier])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert Note.parse(raw).written.encode() == raw


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_printable_text_round_trips(text: str) -> None:
    if any(character < " " and character != "\n" for character in text):
        return
    note = sign_note(text + "\n", [LOG])
    assert Note.parse(note.written) == note
    assert note.verify([LOG.verifier])
