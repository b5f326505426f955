import ctypes
import sys

import userdma

peers = ctypes.CDLL(sys.argv[1])
peers.peers_open.restype = ctypes.c_void_p

assert userdma.present()
buffer = peers.peers_open()
with userdma.fault(f"qp={peers.peers_qpn()},drop=100%,count=1") as fault:
    assert peers.peers_read() == 0
    fault.wait(1)
    assert fault.count == 1
    try:
        fault.wait(2, 0.001)
        sys.exit("a rule acts too often")
    except TimeoutError:
        pass
try:
    fault.count
    sys.exit("a rule is not over")
except OSError:
    pass
try:
    userdma.fault("drp=1")
    sys.exit("a wrong rule is accepted")
except OSError as error:
    assert 'there is no "drp"' in str(error)
userdma.name(buffer, "pool", 4096)
with userdma.lend(buffer, userdma.READ, "request 1", length=4096) as lend:
    assert peers.peers_read() == 0
lend.take_back()
assert userdma.expect_finished(buffer, 4096) == 0
userdma.unchecked(buffer, 8)
assert peers.peers_read() == 0
# memory of Python's own
own = userdma.lend(bytearray(64), userdma.READ | userdma.WRITE)
own.take_back()
try:
    userdma.lend(bytearray(8), userdma.READ, length=9)
    sys.exit("a length beyond the buffer is accepted")
except ValueError:
    pass
peers.peers_close()
