"""What readers of media fetch with in tests: pickled, so that they stand in a module."""

import io
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ObjectMissingError, StorageUnavailableError
from tests.models.tiny_variants import noise_image


def fetch(uri: str) -> bytes:
    """The bytes of an image, unless the address says what goes wrong."""
    match uri:
        case "junk":
            return b"not a picture"
        case "gone":
            raise ObjectMissingError("gone: no such object")
        case "away":
            raise StorageUnavailableError("the server is away")
        case "reset":
            raise ConnectionResetError("reset by peer")
        case "odd":
            raise KeyError("Contents")
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            threading.Event().wait()
        case "huge":
            return bytes(64 << 30)
        case "asks to leave":
            raise SystemExit("a library wanted to leave")
    png = io.BytesIO()
    noise_image(1, 50).save(png, "PNG")
    return png.getvalue()


@dataclass(frozen=True)
class FromFolder:
    """Files of a folder, by name."""

    folder: Path

    def __call__(self, uri: str) -> bytes:
        return (self.folder / uri).read_bytes()
