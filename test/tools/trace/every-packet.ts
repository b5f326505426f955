/*
 * Packets of every opcode that the engine sends, as two connected nodes exchange them. RC also has NAKs.
 */
import { Errno } from '../../../src/spec/errno.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { createNode, type SendSpec, SHARED_QUEUE } from '../../transport/engine/node.ts'

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM } = WrOpcode.values
const { RDMA_READ, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, FLUSH, ATOMIC_WRITE } = WrOpcode.values

/** The queue pair numbers of the requester and of the responder. */
const QPN = [0x11, 0x22] as const
/** The first PSNs of the requester and of the responder. The requester's PSN wraps after a few packets. */
const PSN = [0xff_fffa, 0x3000] as const
const MTU = 1024
/** Each pad count, and 1 to 3 packets: ONLY, FIRST with LAST, FIRST with MIDDLE and LAST. */
const LENGTHS = [0, 1, 2, 3, 4, MTU, 2 * MTU, 2 * MTU + 5]
/** Placement and selectivity of a FLUSH: the low and the high half of `swap`. `compare` has the length. */
const GLOBAL = 1n
const WHOLE_REGION = 1n
const { SIGNALED, SOLICITED } = SendFlags.values
const QKEY = 0x1122_3344
const WINDOW_KEY = 0x4444
/** Offset in the responder's memory; a multiple of 8, as atomics need. */
const REMOTE = 0x8000
const UNALIGNED_REMOTE = REMOTE + 3

interface EnginePacket {
  /** The sending node. */
  readonly sender: 0 | 1
  /** BTH to ICRC. The ICRC is not computed. */
  readonly bytes: Uint8Array
}

const sges = (length: number): Pick<SendSpec, 'sges'> => ({ sges: length === 0 ? [] : [{ at: 0x100, length }] })
const inEachLength = (opcode: number, fields: Partial<SendSpec> = {}): SendSpec[] =>
  LENGTHS.map(length => ({ id: 1, opcode, flags: SIGNALED, remote: UNALIGNED_REMOTE, ...sges(length), ...fields }))

const messages: readonly SendSpec[] = [
  ...inEachLength(SEND),
  ...inEachLength(SEND_WITH_IMM, { imm: 0x0102_0304, flags: SIGNALED | SOLICITED }),
  ...inEachLength(RDMA_WRITE),
  ...inEachLength(RDMA_WRITE_WITH_IMM, { imm: 0xfffe_fdfc }),
]

/** An XRC request has the number of the shared receive queue in its flags (types.ts: Send.FLAGS). */
const toShared = (spec: SendSpec): SendSpec => ({ ...spec, flags: (spec.flags ?? SIGNALED) | (SHARED_QUEUE << 8) })

const reliable: readonly SendSpec[] = [
  ...messages,
  ...inEachLength(RDMA_READ),
  { id: 2, opcode: ATOMIC_CMP_AND_SWP, remote: REMOTE, compare: 1n, swap: 0x1122_3344_5566_7788n, ...sges(8) },
  { id: 3, opcode: ATOMIC_FETCH_AND_ADD, remote: REMOTE, compare: 0xffff_ffff_ffff_fff0n, ...sges(8) },
  { id: 6, opcode: FLUSH, remote: REMOTE, compare: 100n, swap: GLOBAL },
  { id: 7, opcode: FLUSH, remote: 0, swap: GLOBAL | (WHOLE_REGION << 32n) },
  { id: 8, opcode: ATOMIC_WRITE, remote: REMOTE, ...sges(8) },
  { id: 4, opcode: SEND_WITH_INV, imm: WINDOW_KEY, ...sges(5) },
  { id: 5, opcode: SEND_WITH_INV, imm: WINDOW_KEY, ...sges(MTU + 1) },
]

/** Datagrams to the other queue pair and to a multicast group, at most one packet long. */
const datagrams: readonly SendSpec[] = [
  ...inEachLength(SEND, { to: { qpn: QPN[1], qkey: QKEY, flow: 0 } }),
  ...inEachLength(SEND_WITH_IMM, {
    imm: 0x7777_0001,
    flags: SIGNALED | SOLICITED,
    to: { qpn: QPN[1], qkey: QKEY, flow: 0 },
  }),
  { id: 9, opcode: SEND, to: { qpn: MULTICAST_QPN, qkey: 0x8000_0000, flow: 0 }, ...sges(7) },
].filter(({ sges: [sge] = [] }) => (sge?.length ?? 0) <= MTU)

const work: readonly (readonly [service: number, peer: number, specs: readonly SendSpec[]])[] = [
  [Service.RC, Service.RC, reliable],
  [Service.UC, Service.UC, messages],
  [Service.UD, Service.UD, datagrams],
  [Service.XRC_INI, Service.XRC_TGT, reliable.map(toShared)],
]

const RECEIVE_BYTES = 4096
/** NAKed requests: a wrong key, and more bytes than the receive has. */
const refusedRequests: readonly SendSpec[] = [
  { id: 1, opcode: RDMA_WRITE, remote: 0, rkey: 0xbad, ...sges(4) },
  { id: 1, opcode: SEND, ...sges(RECEIVE_BYTES + 1) },
]
const ALL_REMOTE_RIGHTS = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.FLUSH_GLOBAL
const RC = [Service.RC, Service.RC] as const

interface Responder {
  /** Whether the responder posts a receive before each request; default true. */
  readonly hasReceives?: boolean
  /** Whether its program has unmapped the memory. */
  readonly isUnmapped?: boolean
}

/** Posts `specs` to the requester; returns the packets of both nodes. */
const perform = (
  services: readonly [number, number],
  specs: readonly SendSpec[],
  { hasReceives = true, isUnmapped = false }: Responder = {},
): EnginePacket[] => {
  const nodes = [createNode(), createNode()] as const
  // tshark's heuristic dissectors would decode other bytes than letters as protocols.
  for (const node of nodes) for (let i = 0; i < node.memory.length; i++) node.memory[i] = 0x61 + (i % 26)
  const packets: EnginePacket[] = []
  const rows = nodes.map((node, side) => {
    const row = node.createQp(QPN[side], { service: services[side] })
    node.connect(row, {
      destQpn: QPN[1 - side],
      sqPsn: PSN[side],
      rqPsn: PSN[1 - side],
      pathMtu: MTU,
      access: ALL_REMOTE_RIGHTS,
    })
    return row
  })
  for (const region of nodes[1].regions) region.access |= ALL_REMOTE_RIGHTS
  // One window for each SEND with invalidate.
  for (let i = 0; i < 2; i++)
    nodes[1].regions.push({ key: WINDOW_KEY, pd: 1, offset: 0, length: 8, access: ALL_REMOTE_RIGHTS })
  if (isUnmapped) nodes[1].faults.write = Errno.EFAULT
  const exchange = (): void => {
    for (let hasSent = true; hasSent; ) {
      hasSent = false
      for (const [sender, node] of nodes.entries()) {
        node.transmit(0)
        const sent = node.sent.splice(0)
        const receiver = 1 - sender
        for (const { bytes } of sent) {
          packets.push({ sender: sender as 0 | 1, bytes })
          nodes[receiver].inject(rows[receiver], bytes, 0)
          hasSent = true
        }
        nodes[receiver].endBurst()
      }
    }
  }
  for (const spec of specs) {
    if (hasReceives) nodes[1].postReceive(rows[1], { id: 1, sges: [{ at: 0x4000, length: RECEIVE_BYTES }] })
    nodes[0].post(rows[0], spec)
    exchange()
  }
  return packets
}

export const everyPacket = (): EnginePacket[] => [
  ...work.flatMap(([service, peer, specs]) => perform([service, peer], specs)),
  ...refusedRequests.flatMap(spec => perform(RC, [spec])),
  // Remote operation error.
  ...perform(RC, [{ id: 1, opcode: RDMA_WRITE, remote: REMOTE, ...sges(4) }], { isUnmapped: true }),
  // RNR NAK.
  ...perform(RC, [{ id: 1, opcode: SEND, ...sges(5) }], { hasReceives: false }),
]
