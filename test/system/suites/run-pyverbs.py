"""Runs rdma-core's own tests of pyverbs, one line of output per step: "start TEST", then "pass TEST", "skip TEST REASON" or
"fail TEST REASON". Arguments: the folder that holds the package `tests`, the address of the device, then the suite's own
(--dev, --gid).

Tests of other vendors' devices skip themselves: left out here. Those of the connection manager look for a network
interface below the device, which Linux's soft devices lack too: the tests get the address as an argument.

Garbage is never collected: pyverbs of rdma-core 56 frees a context before the queue pairs in one cycle with it, and
crashes, when that happens in the middle of another test.
"""

import gc
import os
import re
import sys
import unittest

folder = sys.argv.pop(1)
address = sys.argv.pop(1)
# The suite imports its modules by both names.
sys.path[:0] = [folder, os.path.join(folder, "tests")]
from args_parser import parser  # noqa: E402

import base  # noqa: E402
import tests.base  # noqa: E402


class Result(unittest.TestResult):
    def say(self, kind, test, reason=""):
        print(kind, test.id(), " ".join(str(reason).split())[-300:], flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.say("start", test)

    def addSuccess(self, test):
        self.say("pass", test)

    def addSkip(self, test, reason):
        self.say("skip", test, reason)

    def addFailure(self, test, err):
        self.say("fail", test, self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err:
            self.addFailure(test, err)



def given_address(self, dev, port, idx):
    self.args.append([dev, port, idx, address, "00:00:00:00:00:00"])


for suite in (base, tests.base):
    suite.RDMATestCase._get_ip_mac = given_address

names = sorted(name[:-3] for name in os.listdir(os.path.join(folder, "tests")) if re.match(r"test_.*\.py$", name))
wanted = ["tests." + name for name in names if not re.search("mlx5|efa|cuda", name)]
parser.parse_args()
gc.disable()
unittest.defaultTestLoader.loadTestsFromNames(wanted).run(Result())
sys.stdout.flush()
os._exit(0)
