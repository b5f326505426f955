/*
 * Two programs with connected RC queue pairs, and an exchange of messages between them.
 */
import assert from 'node:assert/strict'
import {
  connectQps,
  type Machine,
  machine,
  makeCq,
  makeQp,
  type Program,
  program,
  type Region,
  register,
  type TestCq,
  type TestQp,
} from './machine.ts'
import { type Polled, pollAll, postReceive, postSend, Wr } from './provider.ts'

/** One program of a pair. */
export interface End {
  readonly p: Program
  readonly cq: TestCq
  readonly qp: TestQp
  readonly mr: Region
}

export const REGION_BYTES = 65536

export const makeEnd = (m: Machine, device: number, cqe = 31): End => {
  const p = program(m, device)
  const cq = makeCq(p, cqe)
  return { p, cq, qp: makeQp(p, cq), mr: register(p, REGION_BYTES) }
}

export const pair = (devices: readonly [number, number] = [0, 1], fault = '') => pairOn(machine(2, { fault }), devices)

/** `pair` on an existing machine. */
export const pairOn = (m: Machine, devices: readonly [number, number] = [0, 1]) => {
  const a = makeEnd(m, devices[0])
  const b = makeEnd(m, devices[1])
  connectQps(a.qp, b.qp)
  return { m, a, b }
}

export const sgeOf = ({ address, lkey }: Region, offset: number, length: number) => ({
  address: address + offset,
  length,
  lkey,
})
export const completionFields = ({ id, status, opcode, bytes }: Polled) => ({ id: Number(id), status, opcode, bytes })
export const completions = (cq: TestCq) => pollAll(cq.ring).map(completionFields)
export const pattern = (bytes: Uint8Array, seed: number): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + seed + (i >> 8)) & 0xff
}

/**
 * Transfers 5000 bytes by a WRITE and by a SEND. Throws if a request or its data does not arrive within 100 ticks.
 */
export const exchange = (m: Machine, from: End, to: End, seed: number): void => {
  const writtenAt = 16384 + ((seed * 64) % 8192)
  // An earlier exchange with this seed left the same bytes there.
  to.mr.bytes.fill(0, writtenAt)
  pattern(from.mr.bytes.subarray(0, 5000), seed)
  const remote = to.mr.address + writtenAt
  postReceive(to.qp.receive, 7n, [sgeOf(to.mr, 40000, 6000)])
  postSend(from.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(from.mr, 0, 5000)], remote, rkey: to.mr.rkey })
  postSend(from.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(from.mr, 0, 5000)] })
  const isDone = (): boolean => completionsReady(from) >= 2 && completionsReady(to) >= 1
  for (let left = 100; !isDone() && left > 0; left--) {
    m.settle()
    if (!isDone()) m.tick()
  }
  assert.deepEqual(
    completions(from.cq).map(({ status }) => status),
    [0, 0],
    'statuses of the sender',
  )
  assert.deepEqual(
    completions(to.cq).map(({ status, bytes }) => [status, bytes]),
    [[0, 5000]],
  )
  const sent = from.mr.bytes.subarray(0, 5000)
  assert.equal(Buffer.compare(to.mr.bytes.subarray(writtenAt, writtenAt + 5000), sent), 0, 'bytes of the WRITE')
  assert.equal(Buffer.compare(to.mr.bytes.subarray(40000, 45000), sent), 0, 'bytes of the SEND')
}
const completionsReady = ({ cq: { ring } }: End): number => (ring.producer - ring.consumer) & ring.mask
