"""The one error tree.

    RushesError
    ├── PermanentError                 the same call would fail again
    │   ├── InvalidRequestError        the client asked for something that cannot be (carries `issues`)
    │   ├── CatalogError               the catalog file is wrong
    │   ├── ConfigError                options, environment or cluster do not fit
    │   ├── MediaError                 an image or a video cannot be read, or is not allowed
    │   ├── VariantLoadError           weights cannot be loaded
    │   ├── RenderError                the model raised on this task
    │   ├── BadOutputError             the model returned frames that are no clip (NaN, wrong count)
    │   ├── QuarantinedError           the task killed its process twice
    │   ├── CancelledError             somebody cancelled it
    │   ├── SigningError               a clip could not be signed, and is not to be published unsigned
    │   ├── ModerationRefusedError     moderation refused what goes in or came out (carries `moderation`)
    │   └── StorageError               the store refuses (credentials, missing bucket)
    │       └── ObjectMissingError     no object at that key
    └── TransientError                 worth another attempt
        ├── OutOfMemoryError           the accelerator ran out: split the batch, try again
        ├── StorageUnavailableError    5xx, timeouts, throttling
        ├── MediaUnavailableError      an input's server does not answer, or not in time
        └── PublishError               the clip could not be encoded or stored here

Whether a task is tried again is decided by `is_transient` and by nothing else.
"""

from dataclasses import dataclass

from schemas.moderation import Moderation

# A message names as many; the issue itself keeps them all.
_SHOWN_CHOICES = 8
# Of what others' errors say.
_MOST_CHARS, _MOST_CHARS_OF_A_LINE = 300, 200


@dataclass(frozen=True)
class Issue:
    """One thing wrong with one field. `path` is the field, `choices` what would have been right."""

    path: str
    message: str
    code: str = "invalid"
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.choices[:_SHOWN_CHOICES]
        more = f" and {len(self.choices) - len(shown)} more" if len(self.choices) > len(shown) else ""
        tail = f"; available: {', '.join(shown)}{more}" if shown else ""
        return f"{self.path}: {self.message}{tail}" if self.path else f"{self.message}{tail}"


class RushesError(Exception):
    """Root of every error that Rushes raises on purpose."""


class PermanentError(RushesError):
    """The same call would fail again."""


class TransientError(RushesError):
    """Worth another attempt."""


class InvalidRequestError(PermanentError):
    """A request that cannot be rendered. `issues` is never empty."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        self.issues = issues
        super().__init__("; ".join(str(issue) for issue in issues))


class CatalogError(PermanentError):
    """The catalog file is wrong; the message names file, variant and field."""


class ConfigError(PermanentError):
    """Options, environment or cluster do not fit what was asked."""


class MediaError(PermanentError):
    """An input image or video cannot be read, or is not allowed."""


class VariantLoadError(PermanentError):
    """A variant's weights or classes cannot be loaded."""


class RenderError(PermanentError):
    """The model raised on this task."""


class BadOutputError(PermanentError):
    """The model returned frames that are not a clip."""


class QuarantinedError(PermanentError):
    """The task killed its process twice and is not tried again."""


class CancelledError(PermanentError):
    """The task was cancelled before it was complete."""


class SigningError(PermanentError):
    """A clip's content credentials could not be signed. Trying again has been tried where the signer is a service."""


class ModerationRefusedError(PermanentError):
    """Moderation refused a task's input or output: no other attempt and no other variant would do."""

    def __init__(self, moderation: Moderation) -> None:
        self.moderation = moderation
        super().__init__(moderation)


class StorageError(PermanentError):
    """The store refuses: credentials, missing bucket, bad address."""


class ObjectMissingError(StorageError):
    """There is no object at that key."""


class OutOfMemoryError(TransientError):
    """The accelerator ran out of memory."""


class StorageUnavailableError(TransientError):
    """The store does not answer, or answers 5xx or 'slow down'."""


class MediaUnavailableError(TransientError):
    """The server of an input image or video does not answer, or not in time."""


class PublishError(TransientError):
    """A clip could not be encoded or stored on this machine."""


def is_transient(error: BaseException) -> bool:
    """True when another attempt may succeed. Unknown exceptions are permanent: they would repeat."""
    return isinstance(error, TransientError | ConnectionError | TimeoutError)


def one_line(said: object) -> str:
    """The start of a text of somebody else's, an error's for instance, on one line."""
    return " ".join(str(said).split())[:_MOST_CHARS]


def first_line(error: BaseException) -> str:
    """The start of what an error says; the kind of one that says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:_MOST_CHARS_OF_A_LINE] if lines else type(error).__name__
