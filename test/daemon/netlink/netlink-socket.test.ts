/*
 * Lists (NLM_F_DUMP) for many programs at the same time, and lists that fail. Ports, groups, options and rights of
 * sockets.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createContainment } from '../../../src/daemon/containment.ts'
import type { Managed } from '../../../src/daemon/netlink/answers.ts'
import { type AnswerMessage, createNetlink } from '../../../src/daemon/netlink/netlink.ts'
import { createNetlinkSocket, type NetlinkSocket } from '../../../src/daemon/netlink/netlink-socket.ts'
import { createRequests } from '../../../src/daemon/netlink/requests.ts'
import { ToolTime } from '../../../src/daemon/tool-time.ts'
import { recvBytes } from '../../../src/host/net/sockets.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { NetlinkOption, type NldevCommandName, NldevCommands } from '../../../src/spec/linux/nldev.ts'
import { readMessages } from '../../../src/uapi/nldev/messages.ts'
import { ownAccount } from '../../core/accounts.ts'
import { unboundedTime } from '../unbounded-time.ts'
import { errnoOf, requestOf } from './test-socket.ts'

const SOCKETS = 20
const DATAGRAMS = 100
/** Bytes of a datagram. DATAGRAMS datagrams do not fit in a socket. */
const LENGTH = 8192
/** Maximum steps at the start of a list, and of all lists together in each later turn of the event loop. */
const MAX_STEPS = 4
const SOCK_RAW = 3
/** `isAdmin` of a socket. */
const NO_ADMIN = false

test('twenty lists take at most as many steps in a turn of the event loop as one list', async t => {
  // Each step takes as long as tools have in a turn.
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  const time = new ToolTime({ isBusy: () => false, beforeSlices() {} }).of(ownAccount(), false)
  let steps = 0
  const list = function* (): Generator<Uint8Array> {
    for (let i = 0; i < DATAGRAMS; i++) {
      steps++
      milliseconds += 0.1
      yield new Uint8Array(LENGTH)
    }
  }
  const parts = { containment: createContainment(), time, onDatagram: () => undefined, onHangUp() {} }
  const sockets = Array.from({ length: SOCKETS }, () => createNetlinkSocket(parts, SOCK_RAW, NO_ADMIN))
  t.after(() => {
    for (const socket of sockets) socket.close()
  })
  for (const socket of sockets) {
    steps = 0
    socket.sendList(list())
    assert.ok(steps <= MAX_STEPS, `${steps} at the start of a list`)
  }
  /** The number of received datagrams, by socket. */
  const counts = sockets.map(() => 0)
  const buffer = new Uint8Array(LENGTH)
  while (counts.some(count => count < DATAGRAMS)) {
    sockets.forEach(({ peerEnd }, i) => {
      while (recvBytes(peerEnd, buffer) === LENGTH) counts[i]++
    })
    steps = 0
    await new Promise(setImmediate)
    assert.ok(steps <= MAX_STEPS, `${steps} in one turn`)
  }
  assert.deepEqual(counts, Array(SOCKETS).fill(DATAGRAMS))
  while (sockets.some(({ isListing }) => isListing)) await new Promise(setImmediate)
})

for (const steps of [0, 10])
  test(`a list that fails after ${steps} steps ${steps === 0 ? 'is refused' : 'hangs up the socket'}`, async t => {
    const containment = createContainment(() => {})
    let hangUps = 0
    const parts = { containment, time: unboundedTime, onDatagram: () => undefined, onHangUp: () => void hangUps++ }
    const socket = createNetlinkSocket(parts, SOCK_RAW, NO_ADMIN)
    t.after(() => socket.close())
    const failing = function* (): Generator<undefined> {
      for (let i = 0; i < steps; i++) yield
      throw new Error('a failure')
    }
    if (steps === 0) {
      assert.throws(() => socket.sendList(failing()), /a failure/)
      assert.deepEqual([hangUps, socket.isListing], [0, false])
    } else {
      socket.sendList(failing())
      while (containment.count === 0) await new Promise(setImmediate)
      assert.equal(hangUps, 1)
    }
  })

const createSockets = (t: TestContext, answer: AnswerMessage = () => undefined) => {
  const netlink = createNetlink({ containment: createContainment(), answer })
  t.after(() => netlink.closeAll())
  return {
    netlink,
    open: (isAdmin = true): NetlinkSocket => netlink.open(SOCK_RAW, isAdmin, ownAccount(), unboundedTime),
  }
}

test('the port is the pid, or above all pids if another socket has it; a port in use is refused', t => {
  const { netlink, open } = createSockets(t)
  const sockets = [open(), open(), open(), open()]
  const [first, second, third, last] = sockets as [NetlinkSocket, NetlinkSocket, NetlinkSocket, NetlinkSocket]
  const [pid, otherPid] = [77, 5]
  const [anyPort, noGroups, allGroups] = [0, 0, 0xffff_ffff]
  for (const socket of [first, second, third]) netlink.bind(socket, pid, anyPort, noGroups)
  assert.deepEqual([first.port, second.port, third.port], [pid, 0x8000_0000, 0x8000_0001])
  assert.throws(() => netlink.bind(last, otherPid, first.port, noGroups), { code: 'EADDRINUSE' })
  assert.equal(last.port, 0)
  netlink.bind(last, otherPid, 78, allGroups)
  assert.deepEqual([last.port, last.groups], [78, 2 ** 20 - 1], 'groups beyond the last are ignored')
})

test('an option is on until it is turned off', t => {
  const { netlink, open } = createSockets(t)
  const socket = open()
  for (const value of [0, 1, 0]) {
    netlink.setOption(socket, NetlinkOption.EXT_ACK, value)
    assert.equal(netlink.getOption(socket, NetlinkOption.EXT_ACK), value)
  }
})

test('a request has the rights of CAP_NET_ADMIN only if the sender and the opener of the socket have them', t => {
  const rights: boolean[] = []
  const { netlink, open } = createSockets(t, (_socket, _message, isAdmin) => void rights.push(isAdmin))
  for (const isOpener of [true, false])
    for (const isSender of [true, false])
      netlink.receive(open(isOpener), { pid: 1, isAdmin: isSender }, requestOf('SYS_GET'))
  assert.deepEqual(rights, [true, false, false, false])
})

test('every command that needs CAP_NET_ADMIN is refused without it, before its attributes are checked', t => {
  // A handler that runs throws.
  const noDaemon = new Proxy({} as Managed, { get: () => assert.fail('the handler runs') })
  const { netlink, open } = createSockets(t, createRequests(noDaemon, createContainment()))
  const socket = open(false)
  const buffer = new Uint8Array(LENGTH)
  const refused: string[] = []
  for (const [name, command] of Object.entries(NldevCommands)) {
    if (!('needsNetAdmin' in command)) continue
    netlink.receive(socket, { pid: 1, isAdmin: true }, requestOf(name as NldevCommandName))
    const [message] = readMessages(buffer.slice(0, recvBytes(socket.peerEnd, buffer)))
    assert.equal(errnoOf(message!), Errno.EPERM, name)
    refused.push(name)
  }
  for (const name of ['SET', 'NEWLINK', 'DELLINK', 'SYS_SET', 'STAT_SET']) assert.ok(refused.includes(name), name)
})
