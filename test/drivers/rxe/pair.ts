/*
 * Two programs on a machine with connected queue pairs, and an exchange that shows that they work.
 */
import assert from 'node:assert/strict'
import {
  join,
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
import { Flag, type Polled, pollAll, postReceive, postSend, Wr } from './provider.ts'

export interface End {
  readonly p: Program
  readonly cq: TestCq
  readonly qp: TestQp
  readonly mr: Region
}

export const SIZE = 65536

export const end = (m: Machine, device: number, cqe = 31): End => {
  const p = program(m, device)
  const cq = makeCq(p, cqe)
  return { p, cq, qp: makeQp(p, cq), mr: register(p, SIZE) }
}

export const pair = (devices: readonly [number, number] = [0, 1], fault = '') => pairOn(machine(2, fault), devices)

/** `pair` on an existing machine. */
export const pairOn = (m: Machine, devices: readonly [number, number] = [0, 1]) => {
  const a = end(m, devices[0])
  const b = end(m, devices[1])
  join(a.qp, b.qp)
  return { m, a, b }
}

export const sgeOf = ({ address, lkey }: Region, from: number, length: number) => ({
  address: address + from,
  length,
  lkey,
})
export const short = ({ id, status, opcode, bytes }: Polled) => ({ id: Number(id), status, opcode, bytes })
export const completions = (cq: TestCq) => pollAll(cq.ring).map(short)
export const pattern = (bytes: Uint8Array, seed: number): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + seed + (i >> 8)) & 0xff
}

/** A valid WRITE and SEND, which must succeed. */
export const exchange = (m: Machine, from: End, to: End, seed: number): void => {
  const at = (seed * 64) % 8192
  pattern(from.mr.bytes.subarray(0, 5000), seed)
  const remote = to.mr.address + 16384 + at
  postReceive(to.qp.receive, 7n, [sgeOf(to.mr, 40000, 6000)])
  postSend(from.qp.send, { opcode: Wr.WRITE, sges: [sgeOf(from.mr, 0, 5000)], remote, rkey: to.mr.rkey })
  postSend(from.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(from.mr, 0, 5000)], flags: Flag.SIGNALED })
  const isDone = (): boolean => completionsReady(from) >= 2 && completionsReady(to) >= 1
  for (let left = 100; !isDone() && left > 0; left--) {
    m.settle()
    if (!isDone()) m.tick()
  }
  assert.deepEqual(
    completions(from.cq).map(({ status }) => status),
    [0, 0],
    'an honest program is affected',
  )
  assert.deepEqual(
    completions(to.cq).map(({ status, bytes }) => [status, bytes]),
    [[0, 5000]],
  )
  const sent = from.mr.bytes.subarray(0, 5000)
  assert.equal(Buffer.compare(to.mr.bytes.subarray(16384 + at, 16384 + at + 5000), sent), 0, 'its WRITE')
  assert.equal(Buffer.compare(to.mr.bytes.subarray(40000, 45000), sent), 0, 'its SEND')
}
const completionsReady = ({ cq: { ring } }: End): number => (ring.producer - ring.consumer) & ring.mask
