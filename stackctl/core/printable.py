"""Makes text from outside safe for a terminal and for a CI log (CWE-150).

A container, a backup, a registry or a network can send sequences that a terminal obeys (ESC), characters that change
the order of the text (bidirectional controls, CVE-2021-42574), and invisible characters (zero width).
"""

import codecs
from typing import TextIO


def printable(text: str, keep: str = "\t") -> str:
    """Replace characters that are not plainly visible with escapes, such as \\x1b.

    Characters in `keep` stay unchanged.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Filter:
    """Makes a stream of bytes printable, piece by piece.

    Line ends stay. Output is shown even before its line has ended.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, part: bytes, *, final: bool = False) -> None:
        self._out.write(printable(self._decode(part, final), "\t\n"))
        self._out.flush()
