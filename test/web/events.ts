/*
 * Events of a session for tests of the page: two connected queue pairs and their packets.
 */

import { QpState } from '../../src/spec/enums.ts'
import type { packetOutcomes } from '../../src/spec/faults.ts'
import type { ObjectEvent, PacketsEvent, PostedEvent, SessionEvent } from '../../src/spec/session-events.ts'
import { type OpcodeName, opcodeByNumber, opcodeNumber } from '../../src/spec/wire/opcodes.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../src/spec/work.ts'

export const LEFT = 10
export const RIGHT = 11
const QPN = { [LEFT]: 0x11, [RIGHT]: 0x12 } as const
type Qp = typeof LEFT | typeof RIGHT

export const FIRST_PSN = 0x100

const object = (
  id: Qp,
  time: number,
  change: ObjectEvent['change'],
  values: Record<string, unknown>,
): SessionEvent => ({
  kind: 'object',
  time,
  change,
  object: id,
  device: 0,
  context: 1,
  program: { pid: id, command: 'test' },
  class: 'rc_qp',
  handle: id,
  number: QPN[id],
  method: change === 'created' ? 'create' : 'modify',
  why: 'call',
  stack: [],
  details: { uses: [], values },
})

/** Both queue pairs, created and moved to RTS. */
export const connected = (): SessionEvent[] =>
  ([LEFT, RIGHT] as const).flatMap(id => [
    object(id, 0, 'created', {}),
    object(id, 0, 'changed', { state: QpState.values.RTR, destQpn: QPN[id === LEFT ? RIGHT : LEFT], rqPsn: FIRST_PSN }),
    object(id, 0, 'changed', { state: QpState.values.RTS, sqPsn: FIRST_PSN }),
  ])

export const posted = (
  owner: Qp,
  id: number,
  opcode: keyof typeof WrOpcode.values,
  length: number,
  time: number,
): PostedEvent & { readonly time: number } => ({
  kind: 'posted',
  time,
  stack: ['post_send', 'main'],
  request: {
    id,
    time,
    owner,
    queue: 1,
    number: QPN[owner],
    index: id,
    wrId: BigInt(id),
    opcode: WrOpcode.values[opcode],
    flags: 2,
    isSignaled: true,
    length,
    elements: [],
    remote: undefined,
    destQpn: undefined,
    destination: undefined,
  },
})

interface PacketOptions {
  readonly count?: number
  readonly outcome?: (typeof packetOutcomes)[number]
  readonly direction?: 'sent' | 'received'
  readonly syndrome?: number
  readonly payload?: number
}

export const packets = (
  from: Qp,
  name: OpcodeName,
  psn: number,
  time: number,
  { count = 1, outcome = 'passed', direction = 'sent', syndrome = 0x1f, payload = 1024 }: PacketOptions = {},
): PacketsEvent & { readonly time: number } => {
  const { headerBytes, headers } = opcodeByNumber[opcodeNumber[name]]!
  const bytes = new Uint8Array(headerBytes)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, opcodeNumber[name])
  view.setUint16(2, 0xffff)
  view.setUint32(4, QPN[from === LEFT ? RIGHT : LEFT])
  view.setUint32(8, psn)
  if (headers.includes('AETH')) view.setUint8(12, syndrome)
  const length = headers.includes('AETH') ? headerBytes + 4 : headerBytes + payload + 4
  return {
    kind: 'packets',
    time,
    device: 0,
    direction,
    outcome,
    flow: {
      source: new Uint8Array(16),
      destination: new Uint8Array(16),
      sourcePort: 4791,
      trafficClass: 0,
      hopLimit: 64,
      flowLabel: 0,
    },
    identification: 0,
    count,
    packetBytes: length,
    lastBytes: length,
    headerBytes,
    bytes,
  }
}

/** The CQ of LEFT. */
export const CQ = 20

export const ended = (request: number, time: number): SessionEvent => ({ kind: 'ended', time, request, owner: LEFT })
export const completed = (request: number, position: number, time: number): SessionEvent => ({
  kind: 'completed',
  time,
  request,
  owner: LEFT,
  status: WcStatus.values.SUCCESS,
  opcode: WcOpcode.values.RDMA_WRITE,
  bytes: 0,
  cq: CQ,
  cqPosition: position,
  solicited: false,
  qp: LEFT,
  message: 0,
})
export const polled = (count: number, time: number): SessionEvent => ({ kind: 'polled', time, cq: CQ, count })
