"""The decompressed bytes of a file, from any place, never more than allowed."""

import gzip
import zlib
from typing import BinaryIO

from syncd.formats.chunk import Unreadable

BLOCK = 1 << 18  # bytes read at a time
BOM = b"\xef\xbb\xbf"


class Stream:
    """Reads a plain or compressed file forward. Whatever is wrong with it raises Unreadable."""

    def __init__(self, file: BinaryIO, *, gz: bool, limit: int) -> None:
        self._plain = file
        self._limit = limit
        self.offset = 0
        if file.seekable():
            file.seek(0)
        if gz:
            # An empty file would otherwise pass for the compressed form of nothing.
            if file.read(2) != b"\x1f\x8b":
                raise Unreadable("not a gzip file")
            file.seek(0)
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb") if gz else None

    def read(self, size: int = BLOCK) -> bytes:
        """Up to `size` bytes; none at the end."""
        data = self._plain.read(size) if self._gzip is None else self._inflate(self._gzip, size)
        self.offset += len(data)
        if self.offset > self._limit:
            raise Unreadable(f"holds more than {self._limit} bytes: raise spool.max_file_bytes")
        return data

    def skip_to(self, offset: int) -> None:
        """Go to a place that was reached before. The file may have shrunk since."""
        if offset == self.offset:
            return
        if self._gzip is None:
            end = self._plain.seek(0, 2)
            self.offset = self._plain.seek(min(offset, end))
        else:
            if offset < self.offset:
                self._gzip.seek(0)
                self.offset = 0
            while self.offset < offset and self.read(min(BLOCK, offset - self.offset)):
                pass
        if self.offset < offset:
            raise Unreadable(
                f"has shrunk to {self.offset} bytes after {offset} bytes of it were taken"
            )

    def _inflate(self, file: gzip.GzipFile, size: int) -> bytes:
        try:
            return file.read(size)
        except EOFError:
            raise Unreadable("the compressed data ends too early: the file is truncated") from None
        except gzip.BadGzipFile as error:
            if str(error).startswith("Not a gzipped file"):
                raise Unreadable("other bytes follow the compressed data") from None
            raise Unreadable(f"the compressed data is damaged: {error}") from None
        except zlib.error as error:
            raise Unreadable(f"the compressed data is damaged: {error}") from None


def without_bom(head: bytes) -> bytes:
    """The beginning of a text without its UTF-8 mark. Raises Unreadable if it is not UTF-8."""
    if head.startswith(b"\x1f\x8b"):
        raise Unreadable("the data is compressed with gzip: end the file's name with .gz")
    if head.startswith(b"\0\0\0\0"):
        raise Unreadable("the text begins with NUL bytes: it was never written down")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
        raise Unreadable("the text is UTF-16 or UTF-32: save it as UTF-8")
    return head.removeprefix(BOM)
