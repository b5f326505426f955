"""Runs rdma-core's tests of pyverbs. Prints "start TEST", then "pass TEST", "skip TEST REASON" or "fail TEST REASON".

Arguments: the folder that contains the package `tests`, the address of the device or "-", a prefix of the names of the
modules, then the suite's own (--dev, --gid).

Without the tests whose names match the regular expression PYVERBS_OMITTED of the environment.

Tests of the connection manager look for a network interface in the device's sysfs folder. Soft devices have none there,
on Linux neither: the tests get the device's address instead. With "-" they look for the interface themselves.

Tests of flow steering ask `devlink` for the mode of an adapter's switch, and whether RoCE is on. Soft devices are none of
devlink: they have no switch, and RoCE.

The garbage collector is off: pyverbs of rdma-core 56 crashes if the collector frees a context before queue pairs that
are in one reference cycle with it.
"""

import gc
import os
import re
import sys
import unittest

folder = sys.argv.pop(1)
address = sys.argv.pop(1)
prefix = sys.argv.pop(1)
# The suite imports its modules by both names.
sys.path[:0] = [folder, os.path.join(folder, "tests")]
from args_parser import parser  # noqa: E402

import base  # noqa: E402
import tests.base  # noqa: E402
import tests.utils  # noqa: E402
import utils  # noqa: E402


class Result(unittest.TestResult):
    def print_line(self, kind, test, reason=""):
        print(kind, test.id(), " ".join(str(reason).split())[-300:], flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.print_line("start", test)

    def addSuccess(self, test):
        self.print_line("pass", test)

    def addSkip(self, test, reason):
        self.print_line("skip", test, reason)

    def addFailure(self, test, err):
        self.print_line("fail", test, self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err:
            self.addFailure(test, err)


def add_device_address(self, dev, port, idx):
    self.args.append([dev, port, idx, address, "00:00:00:00:00:00"])


if address != "-":
    for module in (base, tests.base):
        module.RDMATestCase._get_ip_mac = add_device_address

for module in (utils, tests.utils):
    module.encap_mode_check = lambda _: True
    module.is_roce_enabled = lambda _: True


def cases(suite):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from cases(one)
        else:
            yield one


names = sorted(name[:-3] for name in os.listdir(os.path.join(folder, "tests")) if re.match(r"test_.*\.py$", name))
# Modules of adapters run only if they are asked for.
names = [name for name in names if name.startswith(prefix) and not re.search("mlx5|efa|cuda", name[len(prefix):])]
modules = ["tests." + name for name in names]
parser.parse_args()
gc.disable()
suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
omitted = os.environ.get("PYVERBS_OMITTED")
if omitted:
    suite = unittest.TestSuite(case for case in cases(suite) if not re.search(omitted, case.id()))
suite.run(Result())
sys.stdout.flush()
os._exit(0)
