"""What is said of a failure: nothing that names a path, and whether it is worth another attempt."""

import errno

import pytest

from actors.failures import explain, media_error, publish_error
from schemas import errors
from schemas.errors import (
    BadOutputError,
    CancelledError,
    MediaError,
    MediaUnavailableError,
    PublishError,
    RenderError,
    StorageError,
    StorageUnavailableError,
    is_transient,
)
from schemas.moderation import Finding, ModeratedPart, Moderation, ModerationOutcome

SECRET = "/srv/weights/secret"
# What these carry in place of a text.
FAILED = Finding(
    part=ModeratedPart.OUTPUT_VIDEO, outcome=ModerationOutcome.REFUSE, scorer=SECRET, category="gore", error=SECRET
)
OF_VALUES: dict[type[Exception], object] = {
    errors.InvalidRequestError: (),
    errors.ModerationRefusedError: Moderation(findings=(FAILED,)),
}


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RushesError)],
    ids=lambda kind: kind.__name__,
)
def test_a_client_is_told_no_details_and_the_class_alone_decides_another_attempt(kind: type[Exception]) -> None:
    error = kind(OF_VALUES.get(kind, SECRET))
    said = explain(error)
    assert SECRET not in said.message
    assert said.message
    assert said.transient == is_transient(error)
    assert said.code or kind is CancelledError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MediaError("x"), "ASSET.INVALID"),
        (BadOutputError("x"), "INTERNAL.BAD_OUTPUT.CODE01"),
        (RenderError("x"), "INTERNAL"),
        (KeyError("x"), "INTERNAL"),
    ],
)
def test_codes_are_runways(error: Exception, code: str) -> None:
    assert explain(error).code == code


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EMFILE])
def test_a_disk_that_is_full_or_read_only_is_the_stores_trouble_and_not_the_tasks(number: int) -> None:
    error = publish_error(OSError(number, "no"))
    assert isinstance(error, StorageUnavailableError)
    assert explain(error).of_store


def test_an_encoders_error_is_the_tasks_and_another_machine_may_do_better() -> None:
    error = publish_error(ValueError("odd"))
    assert isinstance(error, PublishError)
    assert (explain(error).transient, explain(error).of_store) == (True, False)
    assert str(error) == "ValueError: odd"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), MediaError),
        (StorageError("denied"), MediaError),
        (StorageUnavailableError("x"), MediaUnavailableError),
        (ConnectionResetError("x"), MediaUnavailableError),
        (TimeoutError("x"), MediaUnavailableError),
    ],
)
def test_trouble_with_media_is_never_the_clip_stores(error: Exception, kind: type[Exception]) -> None:
    told = media_error(error, "a.png")
    assert type(told) is kind
    assert str(told).startswith("a.png: ")
    assert not explain(told).of_store
