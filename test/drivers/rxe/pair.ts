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
import { type Polled, pollAll } from './provider.ts'

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

export const pair = (devices: readonly [number, number] = [0, 1]) => {
  const m = machine()
  const a = end(m, devices[0])
  const b = end(m, devices[1])
  join(a.qp, b.qp)
  return { m, a, b }
}

export const piece = ({ address, lkey }: Region, from: number, length: number) => ({
  address: address + from,
  length,
  lkey,
})
export const short = ({ id, status, opcode, bytes }: Polled) => ({ id: Number(id), status, opcode, bytes })
export const completions = (cq: TestCq) => pollAll(cq.ring).map(short)
export const pattern = (bytes: Uint8Array, seed: number): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + seed + (i >> 8)) & 0xff
}
