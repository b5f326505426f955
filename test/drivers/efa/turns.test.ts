/*
 * Turns of the users of an EFA device: how long the sends of one user delay those of another.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createAccount } from '../../../src/core/objects/limits.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { EfaOperation } from '../../../src/spec/drivers/efa-queues.ts'
import { TURN } from '../../../src/transport/engine/transmit-queue.ts'
import { machine, type Program, program } from './machine.ts'

const { SEND, RDMA_READ } = EfaOperation
const [OWNER, NOISY, QUIET] = [1, 2, 3]
/** A part of a READ that a poll copies at a time. */
const PART = 0x1_0000
const SENDS = 40
/** Each look at the clock takes so long: a send has two. */
const LOOK = TURN / 4

const limits = createSharedLimits()
const accountOf = (user: number) => createAccount(limits, { pid: user, user, payer: user, owner: OWNER })

/** A device on which one user reads much, and another one, or the same, has a queue pair. `poll`: polls it once. */
const start = (quiet: number, length: number) => {
  const m = machine(1)
  const [noisy, peer, other] = [NOISY, NOISY, quiet].map(user =>
    program(m, 0, { account: accountOf(user), bytes: SENDS * 1024 + length }),
  ) as [Program, Program, Program]
  let time = 0
  Object.defineProperty(m.time, 'now', {
    get() {
      time += LOOK
      return time
    },
  })
  const ah = noisy.handleOf(0)
  const remote = { address: peer.address, rkey: peer.region.rkey }
  for (let id = 0; id < SENDS; id++)
    noisy.post({ id, operation: RDMA_READ, ah, qpn: peer.qpn, offset: 0, length, remote })
  return { noisy, peer, other, poll: () => m.devices[0]!.poll(0) }
}

it('the sends of a user take one turn of a poll while queue pairs have several owners, and all are executed', () => {
  const { noisy, other, poll } = start(QUIET, 1024)
  other.receive(7, 0, 64)
  const ah = other.handleOf(0)
  other.post({ id: 1, operation: SEND, ah, qpn: other.qpn, offset: 0, length: 64 })
  poll()
  const first = noisy.poll().length
  assert.ok(first > 0 && first * LOOK <= TURN, `${first} sends`)
  assert.equal(other.poll().length, 2)
  let ended = first
  for (let polls = 0; polls < SENDS && ended < SENDS; polls++) {
    poll()
    ended += noisy.poll().length
  }
  assert.equal(ended, SENDS)
})

it('a long READ is executed a part at a time then, and sends of the other user come between', () => {
  const { noisy, other, poll } = start(QUIET, 4 * PART)
  poll()
  const ah = other.handleOf(0)
  for (let i = 0; i < 3; i++) {
    other.receive(i, 0, 64)
    other.post({ id: i, operation: SEND, ah, qpn: other.qpn, offset: 0, length: 64 })
    poll()
    assert.equal(other.poll().length, 2)
  }
  let ended = noisy.poll().length
  assert.ok(ended < SENDS)
  for (let polls = 0; polls < 5 * SENDS && ended < SENDS; polls++) {
    poll()
    ended += noisy.poll().length
  }
  assert.equal(ended, SENDS)
})

it('queue pairs of one owner have no turns', () => {
  const { noisy, poll } = start(NOISY, 1024)
  poll()
  assert.equal(noisy.poll().length, SENDS)
})
