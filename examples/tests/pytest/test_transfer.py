"""pytest with userdma: PYTHONPATH=/usr/share/userdma pytest, after cc -shared -fPIC -o libtransfer.so ../transfer.c -libverbs."""

import ctypes
import os

import pytest

SUCCESS, RETRY_EXC_ERR = 0, 12
OPCODES = {"WRITE": 0, "WRITE_WITH_IMM": 1, "SEND": 2, "SEND_WITH_IMM": 3, "READ": 4, "FETCH_ADD": 6}
# Losses that queue pairs repair; completions that fail, with their status; posts that fail, with their error.
LOSSES = [f"nth={nth},{effect}" for nth in (1, 2) for effect in ("drop=1", "dup=1", "corrupt=1", "reorder=1", "delay=20ms")]
STATUSES = {"RETRY_EXC_ERR": 12, "WR_FLUSH_ERR": 5, "LOC_PROT_ERR": 4, "REM_OP_ERR": 11, "LOC_QP_OP_ERR": 2}
FAILURES = [
    *[(loss, 0) for loss in LOSSES],
    *[("completion={request},status=" + name, status) for name, status in STATUSES.items()],
    ("post=ENOMEM", -12),
    ("post=EINVAL", -22),
    ("drop=100%", 12),
    ("link=60s", 12),
]


@pytest.fixture
def transfer(userdma):
    library = ctypes.CDLL(os.environ.get("TRANSFER", "./libtransfer.so"))
    library.example_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.example_open(userdma.devices[0].encode()))
    assert handle.value
    yield lambda call, *arguments: getattr(library, "example_" + call)(handle, *arguments)
    library.example_close(handle)


def test_writes(transfer):
    assert transfer("write") == SUCCESS


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize("rules, status", FAILURES)
def test_survives(userdma, transfer, rules, status, opcode):
    with userdma.fault(rules.format(request=opcode.replace("_WITH_IMM", ""))) as fault:
        assert transfer("request", OPCODES[opcode]) == status
        assert fault.count > 0
    assert transfer("request", OPCODES[opcode]) == SUCCESS


def test_reconnects(userdma, transfer):
    with userdma.fault("drop=100%") as fault:
        assert transfer("write") == RETRY_EXC_ERR
        fault.wait(3)
    assert transfer("write") == SUCCESS


@pytest.mark.userdma_expect("stale-rkey")
def test_survives_a_stale_key(transfer):
    assert transfer("write_stale") != SUCCESS
    assert transfer("write") == SUCCESS


@pytest.mark.skipif("HANG" not in os.environ, reason="fails: the time limit, and what the program leaves undone")
def test_of_a_program_that_hangs(userdma):
    userdma.run(["ibv_rc_pingpong", "-g", "1", "-d", userdma.devices[0], "-p", "18599"], timeout=3)


@pytest.mark.skipif("MISTAKE" not in os.environ, reason="fails: the finding of the check")
def test_with_a_mistake(transfer):
    transfer("write_stale")
