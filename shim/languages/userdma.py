"""What a program can tell userdma: which bytes of its memory are lent to peers, and faults that it wants in a test.

For Python 3.7 and newer, without other modules. The functions are those of userdma's preload library, which userdma.h
describes too; without it lends do nothing, and faults raise OSError.

    with userdma.lend(buffer, userdma.READ, "request 17"):
        ...
    with userdma.fault("drop=100%") as fault:
        ...
        fault.wait(1)

Memory is an address with `length`, or an object with a writable buffer, such as a bytearray, a memoryview or an mmap.
"""

import ctypes
import errno
import os
from typing import Any, Optional

READ = 1
WRITE = 2
ATOMIC = 4

_void_p, _size_t, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_u32, _u64, _char_p = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char_p
_program = ctypes.CDLL(None)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = getattr(_program, "userdma_" + name)
    except AttributeError:
        return None
    function.restype = result
    function.argtypes = arguments
    return function


_lend = _function("check_lend", _u64, _void_p, _size_t, _int, _char_p, _u32, _u32)
_take_back = _function("check_take_back", _int, _u64)
_expect_finished = _function("check_expect_finished", _int, _void_p, _size_t)
_unchecked = _function("check_unchecked", None, _void_p, _size_t)
_name = _function("check_name", None, _void_p, _size_t, _char_p)
_inject = _function("inject", _int, _char_p, _char_p, _size_t)
_inject_clear = _function("inject_clear", _int, _int)
_inject_count = _function("inject_count", ctypes.c_long, _int)
_inject_wait = _function("inject_wait", _int, _int, _u64, _int)
_inject_version = _function("inject_version", _int)


def _range(memory: Any, length: Optional[int]) -> "tuple[int, int]":
    if isinstance(memory, int):
        if length is None:
            raise TypeError("an address needs a length")
        return memory, length
    view = memoryview(memory).cast("B")
    whole = len(view)
    if length is not None and not 0 <= length <= whole:
        raise ValueError(f"length {length} is not from 0 to {whole}")
    if whole == 0:
        return 0, 0
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), whole if length is None else length


class Lend:
    """A lend; `take_back`, or the end of its `with`, ends it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def take_back(self) -> None:
        """Ends the lend. Raises ValueError if this process has not made it (after fork)."""
        number, self._number = self._number, 0
        if number and _take_back(number):
            raise ValueError("this process has not made the lend")

    def __enter__(self) -> "Lend":
        return self

    def __exit__(self, *_: Any) -> None:
        self.take_back()


def lend(
    memory: Any, rights: int, label: str = "", *, length: Optional[int] = None, qp_num: int = 0, milliseconds: int = 0
) -> Lend:
    """Lends memory of this process from now on, before a peer is told of it.

    `rights`: READ, WRITE and ATOMIC; with READ alone the owner promises not to change the bytes either. `label`: says in
    findings for what, at most 55 bytes. `qp_num`: only for the peer of this queue pair; 0: for any. `milliseconds`: only
    for this time; 0: until it is taken back.
    """
    address, size = _range(memory, length)
    return Lend(_lend(address, size, rights, label.encode(), qp_num, milliseconds) if _lend else 0)


def expect_finished(memory: Any, length: Optional[int] = None) -> int:
    """Relies on it that no request of a peer to these bytes is outstanding; returns how many are, which is a finding."""
    return _expect_finished(*_range(memory, length)) if _expect_finished else 0


def unchecked(memory: Any, length: Optional[int] = None) -> None:
    """Peers may access these bytes at any time, such as a flag."""
    if _unchecked:
        _unchecked(*_range(memory, length))


def name(memory: Any, text: str, length: Optional[int] = None) -> None:
    """The name of these bytes in findings, at most 55 bytes."""
    if _name:
        _name(*_range(memory, length), text.encode())


class Fault:
    """Fault rules; `clear`, or the end of its `with`, ends them."""

    def __init__(self, number: int) -> None:
        self._number = number

    def clear(self) -> None:
        """Ends the rules; links that they have taken down are up again. No effect when repeated."""
        number, self._number = self._number, 0
        if number:
            _inject_clear(number)

    @property
    def count(self) -> int:
        """How often the rules have acted so far; each effect on a packet counts. Raises OSError if they are over."""
        return _acted(_inject_count(self._number))

    def wait(self, n: int = 1, seconds: Optional[float] = 10) -> None:
        """Waits until the rules have acted `n` times; None: without limit. Raises TimeoutError, or OSError if they are over."""
        _acted(_inject_wait(self._number, n, -1 if seconds is None else int(seconds * 1000)))

    def __enter__(self) -> "Fault":
        return self

    def __exit__(self, *_: Any) -> None:
        self.clear()


def _acted(answer: int) -> int:
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


def fault(rules: str) -> Fault:
    """Sets fault rules, the text of `--fault`, until they are cleared or the process ends.

    Rules for packets act on packets of this process's queue pairs, other rules on this process. What touches a whole device,
    such as "link=50ms", needs a device that no other process has open, or a daemon with `--allow-faults`. Raises OSError with
    a sentence if they are refused, or without userdma.
    """
    if not _inject:
        raise OSError(errno.ENOSYS, "the program does not run with userdma")
    why = ctypes.create_string_buffer(512)
    number = _inject(rules.encode(), why, len(why))
    if number < 0:
        raise OSError(-number, why.value.decode(errors="replace") or os.strerror(-number))
    return Fault(number)


def present() -> bool:
    """Whether the program runs with userdma of this file's version; otherwise a test that needs faults skips."""
    return bool(_inject_version and _inject_version() == 1)
