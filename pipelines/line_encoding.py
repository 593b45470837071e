"""Whether text is UTF-8, judged line by line: a damaged line is not an encoding."""

from pipelines.manifest_file import legacy_encoding

_SAMPLE_BYTES = 64 * 1024


class LineEncoding:
    """Looks at lines until one shows what the file is written in.

    A line beyond ASCII that is UTF-8 settles it: the bytes of other encodings hardly ever are. Lines that are not are
    then damaged, and rejected one by one. Only where no line is UTF-8 has the file another encoding.
    """

    def __init__(self) -> None:
        self._is_utf8 = False
        self._sample = bytearray()

    def look(self, lines: list[bytes]) -> None:
        """Take more lines into account."""
        if self._is_utf8:
            return
        for line in lines:
            if line.isascii():
                continue
            try:
                line.decode()
            except UnicodeDecodeError:
                if len(self._sample) < _SAMPLE_BYTES:
                    self._sample += line[:_SAMPLE_BYTES]
            else:
                self._is_utf8 = True
                return

    @property
    def other(self) -> str | None:
        """The encoding that the lines have instead of UTF-8; None when they are UTF-8 or nothing fits them."""
        return None if self._is_utf8 or not self._sample else legacy_encoding(bytes(self._sample))
