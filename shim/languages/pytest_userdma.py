"""A plugin for pytest: devices for each test, and findings of `userdma check` fail the test that caused them.

    # pyproject.toml: [tool.pytest.ini_options] addopts = "-p pytest_userdma"
    def test_reconnects(userdma):
        with userdma.fault("drop=100%") as fault:      # see userdma.py, for programs in this process
            ...
        userdma.run(["./client", userdma.devices[0]])  # programs that the test starts are checked too

    @pytest.mark.userdma_expect("stale-rkey")          # must be found, and does not fail the test
    @pytest.mark.userdma(devices=1, driver="mlx5")     # default: two devices of rxe

pytest runs under `userdma check`, which the plugin starts, so it is to be loaded by `-p`. A test that needs no devices takes no
fixture; its findings count too. Processes of pytest-xdist share the daemon, so findings without a device fail the test that
ends first. `userdma_fail_on` in the configuration: error (default), warning or note. Python 3.7 and newer, with userdma.py.
"""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional, Set

import pytest

import userdma as _userdma

# Their file, so that processes find the findings and pytest-xdist's do not start daemons of their own.
_FINDINGS = "USERDMA_PYTEST_FINDINGS"
_SEVERITIES = ["note", "warning", "error"]
# Seconds for which the text of an error is awaited.
_PATIENCE = 5.0
# Seconds in which a second SIGINT is the same one: `userdma check` may be slow to pass it on.
_SAME = 3.0
# Of pytest-xdist, also those that replace others: the numbers of a worker's devices are so far apart.
_WORKERS = 1024


def _restart() -> None:
    """Starts this pytest again, under `userdma check`."""
    command = shutil.which(os.environ.get("USERDMA_COMMAND", "userdma"))
    if command is None:
        return
    # Without a name: nothing stays after a signal. The check inherits it.
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    os.set_inheritable(descriptor, True)
    os.environ[_FINDINGS] = f"/proc/{os.getpid()}/fd/{descriptor}"
    arguments = ["check", "--private", "--allow-faults", "--fail-on", "never", "--notes"]
    words = getattr(sys, "orig_argv", [sys.executable, "-m", "pytest", *sys.argv[1:]])
    # In place of this process, so that signals and the exit status are those of pytest.
    os.execv(command, [command, *arguments, "--output", f"/dev/fd/{descriptor}", "--", sys.executable, *words[1:]])


if _FINDINGS not in os.environ and "USERDMA_SOCKET" not in os.environ:
    _restart()


def _interrupt_once() -> None:
    """Without a terminal a process group's SIGINT comes twice: to pytest, and from `userdma check`, which passes it on."""
    last = -_SAME

    def interrupt(number: int, frame: Any) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= _SAME:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)


if _FINDINGS in os.environ and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    _interrupt_once()


class _Ended(Exception):
    """The daemon is gone."""


class _Daemon:
    """A session of a tool with the daemon: src/spec/session.ts has its messages."""

    _HEADER = struct.Struct("<IIIIiIII")
    _HELLO, _TOOL = 1, 16
    _TAG_BYTES = 64

    def __init__(self, path: str) -> None:
        self._path = path
        self._serial = 0
        if not self._connect(0):
            self._connect(self._version)

    def _connect(self, version: int) -> bool:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(self._path)
        answer = self.ask(self._HELLO, struct.pack("<II", version, 0) + bytes(self._TAG_BYTES))
        self._version, error = struct.unpack_from("<Ii", answer)
        if error:
            self._socket.close()
        return error == 0

    def ask(self, kind: int, body: bytes) -> bytes:
        self._serial += 1
        size = self._HEADER.size + len(body)
        header = self._HEADER.pack(kind, size, self._serial, 0, -1, os.getpid(), os.getpid(), 0)
        try:
            self._socket.send(header + body)
            message, ancillary, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(32))
        except OSError:
            message, ancillary = b"", []
        for _, _, descriptors in ancillary:
            for (descriptor,) in struct.iter_unpack("i", descriptors):
                os.close(descriptor)
        if not message:
            raise _Ended("userdma: the daemon has ended")
        return message[self._HEADER.size :]

    def tool(self, **request: Any) -> Dict[str, Any]:
        answer = json.loads(self.ask(self._TOOL, json.dumps(request).encode()))
        if "error" in answer:
            raise RuntimeError("userdma: " + answer["error"])
        return answer


class _Findings:
    """The findings of the session, each as a dictionary of id, severity, device and text."""

    _FINDINGS = 35
    _REPLY = struct.Struct("<q40s16s64s960s")

    def __init__(self, daemon: _Daemon, path: str) -> None:
        self._daemon = daemon
        self._path = path
        self._count = 0
        self._at = 0

    def new(self) -> List[Dict[str, str]]:
        """Those since the last call, of what was done and has ended before."""
        found = []
        while True:
            reply = self._daemon.ask(self._FINDINGS, struct.pack("<II", self._count, 1))
            count, *fields = self._REPLY.unpack_from(reply)
            if count <= self._count:
                return found
            self._count += 1
            texts = [field.split(b"\0")[0].decode(errors="replace") for field in fields]
            found.append(self._whole(dict(zip(["id", "severity", "device", "text"], texts))))

    def _whole(self, finding: Dict[str, str]) -> Dict[str, str]:
        """With the lines of source that `userdma check` prints, unless it prints them at the end, as leaks, or not at all."""
        head = f"userdma check: {finding['severity']} {finding['id']}: "
        block = re.compile("^" + re.escape(head) + "[^\n]*" + re.escape(finding["text"]) + ".*?(?=^\\S|\\Z)", re.M | re.S)
        end = time.monotonic() + (_PATIENCE if finding["severity"] == "error" else 0)
        while True:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                found = block.search(file.read(), self._at)
            if found is not None or time.monotonic() > end:
                self._at = found.end() if found else self._at
                return {**finding, "text": found.group().rstrip() if found else head + finding["text"]}
            time.sleep(0.01)


def _health() -> str:
    """What the programs of the daemon leave undone (`userdma stat --health`)."""
    command = shutil.which(os.environ.get("USERDMA_COMMAND", "userdma"))
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    words = [command or "userdma", "stat", "--health"]
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, universal_newlines=True).stdout


class Userdma:
    """The fixture: devices of the test, and faults and findings."""

    fault = staticmethod(_userdma.fault)
    #: What programs left undone when a time limit ended one of them.
    health = ""

    def __init__(self, devices: List[str]) -> None:
        #: Names of the devices.
        self.devices = devices

    @staticmethod
    def run(command: Any, **options: Any) -> "subprocess.CompletedProcess[str]":
        """As subprocess.run, with the output as text; the program must end with 0. `timeout` tells what it leaves undone."""
        pipes = {name: subprocess.PIPE for name in ("stdout", "stderr")}
        options = {"check": True, "universal_newlines": True, "input": None, "timeout": None, **pipes, **options}
        must_succeed, given, seconds = (options.pop(name) for name in ("check", "input", "timeout"))
        if given is not None:
            options["stdin"] = subprocess.PIPE
        with subprocess.Popen(command, **options) as program:
            try:
                output = program.communicate(given, timeout=seconds)
            except BaseException as error:
                if isinstance(error, subprocess.TimeoutExpired):
                    Userdma.health = _health()
                program.kill()
                raise
        if must_succeed and program.returncode:
            raise subprocess.CalledProcessError(program.returncode, command, *output)
        return subprocess.CompletedProcess(command, program.returncode, *output)


class _Session:
    def __init__(self, config: Any) -> None:
        self.fail_on = config.getini("userdma_fail_on")
        self.daemon: Optional[_Daemon] = None
        self.findings: Optional[_Findings] = None
        self.next_device = 0
        self.late: List[str] = []
        # By the test that runs.
        self.found: Set[str] = set()
        # By device: the test that had it.
        self.tests: Dict[str, str] = {}
        # By the test that has them.
        self.devices: Dict[str, List[str]] = {}
        path = os.environ.get("USERDMA_SOCKET")
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        self.is_worker = worker is not None
        if path and _userdma.present():
            self.daemon = _Daemon(path)
            if _FINDINGS in os.environ and (self.is_worker or getattr(config.option, "dist", "no") == "no"):
                self.findings = _Findings(self.daemon, os.environ[_FINDINGS])
                # From now on the mistakes of each device count for themselves.
                self.findings.new()
            self.next_device = 1 + int(worker[2:] if worker else 0)
            if not self.is_worker:
                for device in self.daemon.tool(kind="config")["config"]["devices"]:
                    self.daemon.tool(kind="device", remove=device["name"])

    def add_devices(self, count: int, driver: str) -> List[str]:
        names = []
        for _ in range(count):
            number = self.next_device
            self.next_device += _WORKERS
            name = f"{driver}_{number}" if driver in ("mlx5", "efa") else f"{driver}{number}"
            address = f"127.{1 + (number >> 16 & 63)}.{number >> 8 & 255}.{number & 255}"
            self.daemon.tool(kind="device", add={"name": name, "address": address, "driver": driver})
            names.append(name)
        return names

    def remove_devices(self, test: str) -> None:
        for name in self.devices.pop(test, []):
            self.daemon.tool(kind="device", remove=name)

    def new_findings(self, test: str) -> List[Dict[str, str]]:
        """Those of the test, or of no test's device; others are late, or those of another worker."""
        own = []
        for finding in self.findings.new() if self.findings else []:
            owner = self.tests.get(finding["device"], "" if finding["device"] and self.is_worker else test)
            if owner == test:
                own.append(finding)
            elif owner:
                self.add_late(owner, finding)
        return own

    def add_late(self, test: str, finding: Dict[str, str]) -> None:
        if self.fails(finding):
            self.late.append(f"{test}: {finding['text']}")

    def fails(self, finding: Dict[str, str]) -> bool:
        return _SEVERITIES.index(finding["severity"]) >= _SEVERITIES.index(self.fail_on)


def pytest_addoption(parser: Any) -> None:
    parser.addini("userdma_fail_on", "findings from this severity on fail a test: error, warning, note", default="error")


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "userdma(devices, driver): devices of the fixture userdma; default: 2 of rxe")
    config.addinivalue_line("markers", "userdma_expect(id, ...): findings that the test must cause")
    config.userdma_session = _Session(config)


@pytest.fixture
def userdma(request: Any) -> Any:
    """Devices for a test; skips without userdma."""
    session = request.config.userdma_session
    if session.daemon is None:
        pytest.skip("userdma is missing, or of another version: install it, or set USERDMA_COMMAND")
    mark = request.node.get_closest_marker("userdma")
    settings = {"devices": 2, "driver": "rxe", **(mark.kwargs if mark else {})}
    devices = session.add_devices(settings["devices"], settings["driver"])
    session.devices[request.node.nodeid] = devices
    session.tests.update((name, request.node.nodeid) for name in devices)
    return Userdma(devices)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    outcome = yield
    session = item.config.userdma_session
    if session.findings is None or call.when == "setup":
        return
    report = outcome.get_result()
    if call.excinfo is not None and re.search("Timeout", call.excinfo.exconly()):
        report.sections.append(("userdma stat --health", Userdma.health or _health()))
    Userdma.health = ""
    expected = {finding for mark in item.iter_markers("userdma_expect") for finding in mark.args}
    texts = []
    try:
        for finding in session.new_findings(item.nodeid):
            session.found.add(finding["id"])
            if finding["id"] not in expected and session.fails(finding):
                texts.append(finding["text"])
        if call.when == "teardown":
            texts += [f"userdma check: {name} was expected, and not found" for name in sorted(expected - session.found)]
            session.found.clear()
            session.remove_devices(item.nodeid)
    except _Ended as error:
        session.daemon = session.findings = None
        texts.append(str(error))
    if texts and report.failed:
        report.sections.append(("userdma check", "\n".join(texts)))
    elif texts:
        report.outcome = "failed"
        report.longrepr = "\n".join(texts)


def pytest_sessionfinish(session: Any) -> None:
    own = session.config.userdma_session
    for finding in own.new_findings("no test"):
        own.add_late("no test", finding)
    if own.is_worker:
        session.config.workeroutput["userdma_late"] = own.late
    elif own.late:
        session.exitstatus = 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the process that pytest-xdist's workers report to."""
    node.config.userdma_session.late += getattr(node, "workeroutput", {}).get("userdma_late", [])


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    late = config.userdma_session.late
    if late:
        terminalreporter.section("findings after the end of their test")
        for text in late:
            terminalreporter.write_line(text)
