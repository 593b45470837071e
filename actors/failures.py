"""What became of a task whose attempt raised: one table from exceptions to what is said and done about them.

Whatever a stage raises becomes an error of ours (`media_error`, `publish_error`; the renderer has RenderError), so
that one task's trouble never is anything else than that task's failure. Whether another attempt is worth while is
for `schemas.errors.is_transient` to say, as everywhere.
"""

import errno
from dataclasses import dataclass

from schemas.errors import (
    BadOutputError,
    CancelledError,
    MediaError,
    MediaUnavailableError,
    ModerationRefusedError,
    ObjectMissingError,
    OutOfMemoryError,
    PublishError,
    QuarantinedError,
    RushesError,
    SigningError,
    StorageError,
    StorageUnavailableError,
    is_transient,
)


@dataclass(frozen=True)
class Explanation:
    """A failure, for a client: `message` names no path, address or library; `code` is of Runway's vocabulary."""

    transient: bool
    message: str
    code: str
    # Not the task's: the next one would meet it as well.
    of_store: bool = False


_INTERNAL = "INTERNAL"

# Exception → what a client is told, Runway's failure code. The first that fits counts.
_TABLE: tuple[tuple[type[Exception], str, str], ...] = (
    (CancelledError, "cancelled", ""),
    (MediaError, "an input image or video cannot be read", "ASSET.INVALID"),
    (MediaUnavailableError, "an input image or video could not be fetched", "ASSET.INVALID"),
    (BadOutputError, "the model's output is no clip", "INTERNAL.BAD_OUTPUT.CODE01"),
    (OutOfMemoryError, "the accelerator ran out of memory", _INTERNAL),
    (QuarantinedError, "its process ended several times over it", _INTERNAL),
    (SigningError, "its clip could not be signed", _INTERNAL),
    (PublishError, "its clip could not be encoded or stored", _INTERNAL),
    (StorageUnavailableError, "the clip store does not answer", _INTERNAL),
    (StorageError, "the clip store refuses", _INTERNAL),
)

# Of the machine or its disks rather than of a task: full, read-only, over quota, out of file handles.
_OF_HOST = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE}
)


def explain(error: Exception) -> Explanation:
    """What is said of a failure, and whether another attempt is worth while. Never raises."""
    of_store = isinstance(error, StorageError | StorageUnavailableError)
    if isinstance(error, ModerationRefusedError):
        return Explanation(False, error.moderation.told, error.moderation.code)
    for kind, message, code in _TABLE:
        if isinstance(error, kind):
            return Explanation(is_transient(error), message, code, of_store)
    return Explanation(is_transient(error), f"the model failed on this task ({type(error).__name__})", _INTERNAL)


def media_error(error: Exception, uri: str) -> RushesError:
    """What reading or decoding the input at `uri` raised, as one of MediaError and MediaUnavailableError."""
    if isinstance(error, MediaError | MediaUnavailableError):
        return error
    if isinstance(error, ObjectMissingError):
        return MediaError(f"{uri:.200}: not there")
    if isinstance(error, RushesError):
        text = f"{uri:.200}: {error}"
    elif isinstance(error, MemoryError):
        text = f"{uri:.200}: decoding it takes more memory than it may have"
    else:
        text = f"{uri:.200}: {type(error).__name__}: {error}"
    return MediaUnavailableError(text) if is_transient(error) else MediaError(text)


def publish_error(error: Exception) -> RushesError:
    """What encoding and storing a clip raised, as an error of ours."""
    if isinstance(error, RushesError):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in _OF_HOST:
        return StorageUnavailableError(text)
    return PublishError(text)
