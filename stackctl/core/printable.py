"""Text from outside, made fit for a terminal and for a CI's log (CWE-150).

A container, a backup, a registry or a network can put into it what a terminal obeys (ESC sequences), what changes the
order of what is read (bidirectional controls, CVE-2021-42574) and what nobody sees (zero-width characters).
"""

import codecs
from typing import TextIO


def printable(text: str, keep: str = "\t") -> str:
    """Write every character that isn't plainly visible as an escape, such as \\x1b. Those in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class Filter:
    """Makes a stream of bytes printable as it comes. Lines stay lines; one without an end is not waited for."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, part: bytes, *, final: bool = False) -> None:
        self._out.write(printable(self._decode(part, final), "\t\n"))
        self._out.flush()
