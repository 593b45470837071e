"""What no log may hold: API keys, webhook secrets, Authorization headers, signatures and passwords in URLs."""

import logging
import re

_HIDDEN = "***"
# Each keeps its first group, so that a line still says what stood there.
_SECRETS = (
    re.compile(r"(\brsh_)[A-Za-z0-9_-]+"),
    re.compile(r"(\bwhsec_)[A-Za-z0-9+/=_-]+"),
    # As a header, as JSON and as Python prints a dict or a list of pairs of bytes.
    re.compile(r"((?i:authorization)['\"]?\s*[:=,]\s*b?['\"]?)[^'\"\r\n]+"),
    re.compile(r"(\b(?i:bearer)\s+)[^\s'\",;]+"),
    re.compile(r"([?&;](?i:signature|sig|token|key|policy|password|secret|x-amz-[a-z-]+|x-goog-[a-z-]+)=)[^&\s'\"<>]*"),
    re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s'\"@]+(?=@)"),
)


def redacted(text: str) -> str:
    """`text` without its secrets."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{_HIDDEN}", text)
    return text


class RedactingFilter(logging.Filter):
    """Takes secrets out of what a handler is about to write: message, arguments and traceback.

    It belongs on handlers: a filter on a logger does not see what the loggers below it say.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            # Formatters print the kept text rather than the exception.
            record.exc_text = redacted(record.exc_text)
        if record.stack_info:
            record.stack_info = redacted(record.stack_info)
        return True


def redact_logs(logger: logging.Logger | None = None) -> None:
    """Put the filter on every handler of `logger` (the root one). May be called again."""
    for handler in (logger or logging.getLogger()).handlers:
        if not any(isinstance(one, RedactingFilter) for one in handler.filters):
            handler.addFilter(RedactingFilter())
