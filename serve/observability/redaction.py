"""What no log may hold: API keys, webhook secrets, Authorization headers, signatures and passwords in URLs."""

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
