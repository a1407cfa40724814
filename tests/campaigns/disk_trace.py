"""What a process really asks of the disk, recorded by strace: a list of events in the order they were finished."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,syncfs,sync,"
    "rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,mknod,mknodat,"
    "copy_file_range,sendfile,sync_file_range"
)
_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_WORD = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|(AT_FDCWD|-?\d+)<([^>]*)>|([^,]+)')


@dataclass(frozen=True, kw_only=True)
class Event:
    """One call that succeeded. path: whole; to: a rename's or link's new name. at: where data was written; -1: on."""

    pid: int
    call: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int = -1
    size: int = 0
    creates: bool = False
    truncates: bool = False


def available() -> bool:
    """Whether strace is here and may trace."""
    words = ["strace", "-o", os.devnull, "true"]
    return (
        shutil.which("strace") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


def record(command: Sequence[str], trace: Path, *, env: dict[str, str] | None = None) -> int:
    """Run a command under strace; its exit code."""
    words = ["strace", "-f", "-y", "-xx", "-s", "8000000", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none"]
    return subprocess.run([*words, "-o", str(trace), *command], env=env, check=False).returncode


def read(trace: Path, below: Sequence[Path]) -> Iterator[Event]:
    """The events whose paths are below one of the folders."""
    begun: dict[int, str] = {}
    places = tuple(os.fspath(path) for path in below)
    with trace.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            pid, text = int(found[1]), found[2]
            if text.endswith("<unfinished ...>"):
                begun[pid] = text.removesuffix("<unfinished ...>").rstrip()
                continue
            if text.startswith("<... "):
                text = begun.pop(pid, "") + text.partition(" resumed>")[2]
            event = _event(pid, text)
            if event is not None and (event.path.startswith(places) or event.to.startswith(places)):
                yield event


def _event(pid: int, text: str) -> Event | None:
    found = _CALL.match(text)
    if found is None or int(found[3]) < 0:
        return None
    call, result = found[1], int(found[3])
    words = [_word(match) for match in _WORD.finditer(found[2].replace(", ", ","))]
    if call in {"open", "openat", "creat"}:
        folder, name, flags = (words[0], words[1], words[2]) if call == "openat" else ("", words[0], words[1])
        creates = call == "creat" or b"O_CREAT" in _raw(flags)
        if not creates and b"O_TRUNC" not in _raw(flags):
            return None
        return Event(
            pid=pid, call="open", path=_join(folder, name), creates=creates, truncates=b"O_TRUNC" in _raw(flags)
        )
    if call in {"write", "pwrite64"}:
        at = int(words[3]) if call == "pwrite64" else -1
        return Event(pid=pid, call="write", path=_text(words[0]), data=_raw(words[1])[:result], at=at)
    if call == "ftruncate":
        return Event(pid=pid, call="truncate", path=_text(words[0]), size=int(words[1]))
    if call in {"fsync", "fdatasync", "syncfs"}:
        return Event(pid=pid, call=call, path=_text(words[0]))
    if call in {"rename", "link"}:
        return Event(pid=pid, call=call, path=_join("", words[0]), to=_join("", words[1]))
    if call in {"renameat", "renameat2", "linkat"}:
        name = "link" if call == "linkat" else "rename"
        return Event(pid=pid, call=name, path=_join(words[0], words[1]), to=_join(words[2], words[3]))
    if call in {"mkdir", "unlink", "rmdir", "mknod"}:
        return Event(pid=pid, call=call, path=_join("", words[0]))
    if call in {"mkdirat", "unlinkat", "mknodat"}:
        name = "rmdir" if "AT_REMOVEDIR" in text else call.removesuffix("at")
        return Event(pid=pid, call=name, path=_join(words[0], words[1]))
    if call in {"symlink", "symlinkat"}:
        path = _join("", words[1]) if call == "symlink" else _join(words[1], words[2])
        return Event(pid=pid, call="symlink", path=path, data=_raw(words[0]))
    if call == "fallocate":
        size = 0 if "FALLOC_FL" in text else int(words[2]) + int(words[3])
        return Event(pid=pid, call=call, path=_text(words[0]), size=size)
    # no model knows what these do: whoever meets one below its folder must be told
    return Event(pid=pid, call=call, path=_text(words[2 if call == "copy_file_range" else 0]))


Word = str | bytes


def _word(match: re.Match[str]) -> Word:
    """A string's bytes, the path of a descriptor, or a plain word."""
    quoted, cut, descriptor, path, plain = match.groups()
    if descriptor is not None:
        return _unescaped(path).decode("utf-8", "surrogateescape")
    if quoted is not None:
        assert not cut, "strace cut a string short"
        return _unescaped(quoted)
    return str(plain)


def _unescaped(text: str) -> bytes:
    if "\\x" not in text:
        return text.encode()
    return bytes.fromhex(text.replace("\\x", ""))


def _raw(word: Word) -> bytes:
    return word if isinstance(word, bytes) else word.encode()


def _text(word: Word) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")


def _join(folder: Word, name: Word) -> str:
    return os.path.normpath(os.path.join(_text(folder) or "/", _text(name)))
