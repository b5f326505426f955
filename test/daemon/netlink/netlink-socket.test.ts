/*
 * Lists (NLM_F_DUMP) for many programs at the same time, and lists that fail.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createContainment } from '../../../src/daemon/containment.ts'
import { createNetlinkSocket } from '../../../src/daemon/netlink/netlink-socket.ts'
import { createSlices } from '../../../src/host/event-loop/slices.ts'
import { recvBytes } from '../../../src/host/net/sockets.ts'

const SOCKETS = 20
const DATAGRAMS = 100
/** Bytes of a datagram. DATAGRAMS datagrams do not fit in a socket. */
const LENGTH = 8192
/** Maximum steps at the start of a list, and of all lists together in each later turn of the event loop. */
const MAX_STEPS = 4
const SOCK_RAW = 3

test('twenty lists take at most as many steps in a turn of the event loop as one list', async t => {
  const slices = createSlices()
  let steps = 0
  const list = function* (): Generator<Uint8Array> {
    for (let i = 0; i < DATAGRAMS; i++) {
      steps++
      yield new Uint8Array(LENGTH)
    }
  }
  const parts = { containment: createContainment(), slices, onDatagram: () => undefined, onHangUp() {} }
  const sockets = Array.from({ length: SOCKETS }, () => createNetlinkSocket(parts, SOCK_RAW, false))
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
    const parts = { containment, slices: createSlices(), onDatagram: () => undefined, onHangUp: () => void hangUps++ }
    const socket = createNetlinkSocket(parts, SOCK_RAW, false)
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
