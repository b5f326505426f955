"""What a program can tell `userdma check` of memory that peers access: which bytes are lent, for what, and until when.

For Python 3.7 and newer, without other modules. The functions are those of userdma's preload library, which userdma.h
describes too; without it they do nothing.

    with userdma.lend(buffer, userdma.READ, "request 17"):
        ...

Memory is an address with `length`, or an object with a writable buffer, such as a bytearray, a memoryview or an mmap.
"""

import ctypes
from typing import Any, Optional

READ = 1
WRITE = 2
ATOMIC = 4

_void_p, _size_t, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_u32, _u64, _char_p = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_char_p
_program = ctypes.CDLL(None)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    try:
        function = getattr(_program, "userdma_check_" + name)
    except AttributeError:
        return None
    function.restype = result
    function.argtypes = arguments
    return function


_lend = _function("lend", _u64, _void_p, _size_t, _int, _char_p, _u32, _u32)
_take_back = _function("take_back", _int, _u64)
_expect_finished = _function("expect_finished", _int, _void_p, _size_t)
_unchecked = _function("unchecked", None, _void_p, _size_t)
_name = _function("name", None, _void_p, _size_t, _char_p)
_present = _function("present", _int)


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


def present() -> bool:
    """Whether somebody checks."""
    return bool(_present and _present())
