"""Checkpoints as texts: what is one, and by whom it has to be signed to be believed."""

from __future__ import annotations

import base64

import pytest

from domain.errors import InvalidInput
from eventlog.transparency.checkpoints import Checkpoint, open_checkpoint
from eventlog.transparency.notes import Note, SignatureKind, SigningKey, sign_note
from tests.eventlog.signing import ORIGIN

WITNESS = SigningKey.generate("witness.example/w1", SignatureKind.COSIGNATURE)


def test_the_example_of_the_specification_is_read_and_written() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.text == text


def test_extension_lines_of_other_logs_are_passed_over() -> None:
    root = base64.b64encode(bytes(32)).decode()
    assert Checkpoint.parse(f"o\n3\n{root}\nmore\n") == Checkpoint("o", 3, bytes(32))


@pytest.mark.parametrize(
    "text",
    ["", "o\n", "o\n3\n", "o\n3\nAAAA\n", "o\n03\n{}\n", "o\n-3\n{}\n", "o\n3\n{}", "o\n\n3\n{}\n",
     "o\n3 \n{}\n", "o\n3\n{}\n\nx\n", "\n3\n{}\n", "o\n٣\n{}\n", "o\n3\n*\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Checkpoint.parse(text.replace("{}", base64.b64encode(bytes(32)).decode()))
    assert refused.value.code == "checkpoint.malformed"


def test_a_checkpoint_is_opened_only_with_the_key_called_as_its_origin() -> None:
    log, other = SigningKey.generate(ORIGIN), SigningKey.generate("heddle.example/plant-2")
    text = Checkpoint(ORIGIN, 3, bytes(32)).text
    assert open_checkpoint(sign_note(text, [log]).written, [log.verifier]).size == 3
    with pytest.raises(InvalidInput) as refused:
        open_checkpoint(sign_note(text, [other]).written, [log.verifier, other.verifier])
    assert refused.value.code == "note.unsigned"


def test_witnesses_are_counted_once_each_where_they_are_asked_for() -> None:
    log = SigningKey.generate(ORIGIN)
    text = Checkpoint(ORIGIN, 3, bytes(32)).text
    keys = [log.verifier, WITNESS.verifier]
    twice = (WITNESS.sign(text, time_s=1), WITNESS.sign(text, time_s=2))
    note = Note(text, (log.sign(text), *twice))
    assert open_checkpoint(note.written, keys, witnesses_min=1).size == 3
    for short, wanted in ((note, 2), (sign_note(text, [log]), 1)):
        with pytest.raises(InvalidInput) as refused:
            open_checkpoint(short.written, keys, witnesses_min=wanted)
        assert (refused.value.code, refused.value.limit) == ("checkpoint.unwitnessed", wanted)
