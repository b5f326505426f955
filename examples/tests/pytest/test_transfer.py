"""pytest with userdma: PYTHONPATH=/usr/share/userdma pytest, after cc -shared -fPIC -o libtransfer.so ../transfer.c -libverbs."""

import ctypes
import os

import pytest

SUCCESS, RETRY_EXC_ERR = 0, 12


@pytest.fixture
def transfer(userdma):
    library = ctypes.CDLL(os.environ.get("TRANSFER", "./libtransfer.so"))
    library.example_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.example_open())
    yield lambda call: getattr(library, "example_" + call)(handle)
    library.example_close(handle)


def test_writes(transfer):
    assert transfer("write") == SUCCESS


@pytest.mark.parametrize("kind", ["drop", "dup", "corrupt"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("nth", range(1, 20))
def test_survives(userdma, transfer, nth, count, kind):
    with userdma.fault(f"qp={transfer('qp_num')},nth={nth},count={count},{kind}=100%") as fault:
        assert [transfer("write") for _ in range(20)] == [SUCCESS] * 20
        assert fault.count == count


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
