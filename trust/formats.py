"""What kind of file bytes are, by how they begin: names lie, and stored inputs have none."""

UNKNOWN = "application/octet-stream"
HEAD_BYTES = 16
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "zip"),
    (b"%PDF", "application/pdf"),
    (b"\0\0\0\x0cJXL ", "image/jxl"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "image/svg+xml"),
)
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/avi", b"WAVE": "audio/wav"}
# Brands of ISO media files; any other is a video.
_BRANDS = {
    b"avif": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"qt  ": "video/quicktime",
}


def content_type_of(head: bytes) -> str:
    """The type that C2PA's library takes for such a file; UNKNOWN for any other. HEAD_BYTES of it are enough."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    return next((kind for start, kind in _STARTS if head.startswith(start)), UNKNOWN)
