"""Who does something, as the audit log names it."""

import getpass
import os
import socket


def os_user() -> str:
    """The user of this process, and the machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without a user of that number
        name = str(os.getuid())
    return f"user:{name}@{socket.gethostname()}"


def service(name: str) -> str:
    """A part of an endpoint that acts by itself."""
    return f"service:{name}@{socket.gethostname()}"


def key(key_id: str) -> str:
    """Whoever holds an API key."""
    return f"key:{key_id}"
