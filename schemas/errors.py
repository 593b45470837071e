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
    │   └── StorageError               the store refuses (credentials, missing bucket)
    │       └── ObjectMissingError     no object at that key
    └── TransientError                 worth another attempt
        ├── OutOfMemoryError           the accelerator ran out: split the batch, try again
        ├── StorageUnavailableError    5xx, timeouts, throttling
        └── ActorLostError             the process that held the task died

Whether a task is tried again is decided by `is_transient` and by nothing else.
"""

from dataclasses import dataclass

# A message names as many; the issue itself keeps them all.
_SHOWN_CHOICES = 8


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


class StorageError(PermanentError):
    """The store refuses: credentials, missing bucket, bad address."""


class ObjectMissingError(StorageError):
    """There is no object at that key."""


class OutOfMemoryError(TransientError):
    """The accelerator ran out of memory."""


class StorageUnavailableError(TransientError):
    """The store does not answer, or answers 5xx or 'slow down'."""


class ActorLostError(TransientError):
    """The process that held the task died."""


def is_transient(error: BaseException) -> bool:
    """True when another attempt may succeed. Unknown exceptions are permanent: they would repeat."""
    return isinstance(error, TransientError | ConnectionError | TimeoutError)
