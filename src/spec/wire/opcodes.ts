/*
 * The opcodes of RC, UC, UD and XRC packets (InfiniBand Architecture Specification, volume 1, clause 9.2.1; annexes A14
 * for XRC, A17 for CNP, A19 for FLUSH and ATOMIC WRITE; SRD and DC are our own, in the range for manufacturers). The
 * upper three bits of BTH.opcode are the transport service, the lower five the operation. The operation determines the
 * headers after the BTH; UD packets also have a DETH, XRC requests an XRCETH. There are two forms: `opcodes` has a
 * record per opcode; for the data path there are tables of 256 numbers.
 */
import { type HeaderName, headers } from './headers.ts'

export const transportBits = { RC: 0x00, UC: 0x20, UD: 0x60, XRC: 0xa0, SRD: 0xc0, DC: 0xe0 } as const
export const TRANSPORT_MASK = 0xe0
export const OPERATION_MASK = 0x1f
export type TransportName = keyof typeof transportBits

/** Whether packets of an opcode are of a reliable service with connections, RC or XRC. */
export const isReliableOpcode = (opcode: number): boolean => {
  const service = opcode & TRANSPORT_MASK
  return service === transportBits.RC || service === transportBits.XRC
}

export type OperationKind = 'send' | 'write' | 'read' | 'atomic' | 'flush' | 'atomic_write' | 'ack' | 'cnp' | 'connect'

/** Position of a packet in its message. `only`: a message of one packet. */
export type Position = 'first' | 'middle' | 'last' | 'only'

interface Operation {
  /** The lower five bits of BTH.opcode. */
  readonly code: number
  readonly name: string
  readonly kind: OperationKind
  readonly position: Position
  readonly role: 'request' | 'response'
  readonly headers: readonly HeaderName[]
  readonly hasPayload: boolean
  /** The services that have the operation. */
  readonly transports: readonly TransportName[]
}

const reliable = ['RC', 'XRC'] as const
const connected = ['RC', 'UC', 'XRC'] as const
const all = ['RC', 'UC', 'UD', 'XRC'] as const
const request = { role: 'request', hasPayload: true } as const
const single = { role: 'request', hasPayload: false, position: 'only', transports: reliable } as const
const connectedRequest = { ...request, transports: connected } as const
const reliableRequest = { ...request, transports: reliable } as const
const response = { role: 'response', hasPayload: false, transports: reliable } as const
/** Packets of SRD need no order: each has the headers of its message. */
const srd = { ...request, position: 'only', transports: ['SRD'] } as const
const srdResponse = { role: 'response', position: 'only', hasPayload: false, transports: ['SRD'], kind: 'ack' } as const
/** Connections of DC; their requests are RC packets. */
const dc = { position: 'only', hasPayload: false, transports: ['DC'], kind: 'connect' } as const
const readResponse = { ...response, kind: 'read', hasPayload: true } as const

export const operations = [
  { ...connectedRequest, code: 0x00, name: 'SEND_FIRST', kind: 'send', position: 'first', headers: [] },
  { ...connectedRequest, code: 0x01, name: 'SEND_MIDDLE', kind: 'send', position: 'middle', headers: [] },
  { ...connectedRequest, code: 0x02, name: 'SEND_LAST', kind: 'send', position: 'last', headers: [] },
  { ...connectedRequest, code: 0x03, name: 'SEND_LAST_IMM', kind: 'send', position: 'last', headers: ['ImmDt'] },
  { ...request, code: 0x04, name: 'SEND_ONLY', kind: 'send', position: 'only', headers: [], transports: all },
  {
    ...request,
    code: 0x05,
    name: 'SEND_ONLY_IMM',
    kind: 'send',
    position: 'only',
    headers: ['ImmDt'],
    transports: all,
  },
  { ...connectedRequest, code: 0x06, name: 'WRITE_FIRST', kind: 'write', position: 'first', headers: ['RETH'] },
  { ...connectedRequest, code: 0x07, name: 'WRITE_MIDDLE', kind: 'write', position: 'middle', headers: [] },
  { ...connectedRequest, code: 0x08, name: 'WRITE_LAST', kind: 'write', position: 'last', headers: [] },
  { ...connectedRequest, code: 0x09, name: 'WRITE_LAST_IMM', kind: 'write', position: 'last', headers: ['ImmDt'] },
  { ...connectedRequest, code: 0x0a, name: 'WRITE_ONLY', kind: 'write', position: 'only', headers: ['RETH'] },
  {
    ...connectedRequest,
    code: 0x0b,
    name: 'WRITE_ONLY_IMM',
    kind: 'write',
    position: 'only',
    headers: ['RETH', 'ImmDt'],
  },
  { ...single, code: 0x0c, name: 'READ_REQUEST', kind: 'read', headers: ['RETH'] },
  { ...readResponse, code: 0x0d, name: 'READ_RESP_FIRST', position: 'first', headers: ['AETH'] },
  { ...readResponse, code: 0x0e, name: 'READ_RESP_MIDDLE', position: 'middle', headers: [] },
  { ...readResponse, code: 0x0f, name: 'READ_RESP_LAST', position: 'last', headers: ['AETH'] },
  { ...readResponse, code: 0x10, name: 'READ_RESP_ONLY', position: 'only', headers: ['AETH'] },
  { ...response, code: 0x11, name: 'ACKNOWLEDGE', kind: 'ack', position: 'only', headers: ['AETH'] },
  { ...response, code: 0x12, name: 'ATOMIC_ACK', kind: 'atomic', position: 'only', headers: ['AETH', 'AtomicAckETH'] },
  { ...single, code: 0x13, name: 'COMPARE_SWAP', kind: 'atomic', headers: ['AtomicETH'] },
  { ...single, code: 0x14, name: 'FETCH_ADD', kind: 'atomic', headers: ['AtomicETH'] },
  { ...reliableRequest, code: 0x16, name: 'SEND_LAST_INV', kind: 'send', position: 'last', headers: ['IETH'] },
  { ...reliableRequest, code: 0x17, name: 'SEND_ONLY_INV', kind: 'send', position: 'only', headers: ['IETH'] },
  { ...single, code: 0x1c, name: 'FLUSH', kind: 'flush', headers: ['FETH', 'RETH'] },
  { ...single, code: 0x1d, name: 'ATOMIC_WRITE', kind: 'atomic_write', headers: ['RETH'], hasPayload: true },
  { ...srd, code: 0x00, name: 'SEND', kind: 'send', headers: ['SRDETH'] },
  { ...srd, code: 0x01, name: 'SEND_IMM', kind: 'send', headers: ['SRDETH', 'ImmDt'] },
  { ...srd, code: 0x02, name: 'WRITE', kind: 'write', headers: ['SRDETH', 'RETH'] },
  { ...srd, code: 0x03, name: 'WRITE_IMM', kind: 'write', headers: ['SRDETH', 'RETH', 'ImmDt'] },
  { ...srd, code: 0x04, name: 'READ', kind: 'read', headers: ['SRDETH', 'RETH'], hasPayload: false },
  { ...srd, code: 0x05, name: 'READ_DATA', kind: 'read', role: 'response', headers: ['SRDETH'] },
  { ...srdResponse, code: 0x06, name: 'ACK', headers: ['SRDAETH'] },
  { ...srdResponse, code: 0x07, name: 'REFUSE', headers: ['SRDNAK'] },
  { ...dc, code: 0x00, name: 'CONNECT', role: 'request', headers: ['DCETH'] },
  { ...dc, code: 0x01, name: 'KEEP', role: 'request', headers: ['DCETH'] },
  { ...dc, code: 0x02, name: 'DISCONNECT', role: 'request', headers: ['DCETH'] },
  { ...dc, code: 0x03, name: 'ANSWER', role: 'response', headers: ['DCAETH'] },
] as const satisfies readonly Operation[]

/** Congestion notification packet (annex A17). The 16 reserved bytes count as payload. */
export const CNP = 0x81

type AnyOperation = (typeof operations)[number]
type NameOn<O, T> = O extends { name: infer N extends string } ? `${T & string}_${N}` : never
type NameOf<O> = O extends { transports: readonly (infer T)[] } ? NameOn<O, T> : never

/** SEND_FIRST, FETCH_ADD, … */
export type OperationName = AnyOperation['name']

/** Service and operation, or CNP: RC_SEND_FIRST, UD_SEND_ONLY_IMM, XRC_FETCH_ADD, … */
export type OpcodeName = NameOf<AnyOperation> | 'CNP'

/** The header that service T adds to operation O, as in `headersOfTransport`. */
type ServiceHeader<T, O> = T extends 'UD'
  ? 'DETH'
  : T extends 'XRC'
    ? O extends { role: 'request' }
      ? 'XRCETH'
      : never
    : never
type HeadersOn<O, T, N> = O extends { transports: readonly (infer U)[]; headers: readonly (infer H)[] }
  ? T extends U
    ? NameOn<O, T> extends N
      ? H | ServiceHeader<T, O>
      : never
    : never
  : never

/** The headers that follow the BTH in a packet with opcode N, as a union of names. */
export type HeadersOf<N extends OpcodeName> = {
  [T in TransportName]: AnyOperation extends infer O ? HeadersOn<O, T, N> : never
}[TransportName] &
  HeaderName

export interface Opcode {
  readonly opcode: number
  readonly name: OpcodeName
  /** Absent for CNP. */
  readonly transport?: TransportName
  readonly kind: OperationKind
  readonly position: Position
  /** Absent for CNP. */
  readonly role?: 'request' | 'response'
  /** In transmission order, after the BTH. */
  readonly headers: readonly HeaderName[]
  readonly hasPayload: boolean
  /** Offset of the payload from the start of the BTH. */
  readonly headerBytes: number
  /** Whether BTH.se has a meaning: in the last packet of a message that takes a receive. */
  readonly canBeSolicited: boolean
}

const headersOfTransport = (transport: TransportName, role: Operation['role']): HeaderName[] => {
  if (transport === 'UD') return ['DETH']
  return transport === 'XRC' && role === 'request' ? ['XRCETH'] : []
}

const describe = (operation: Operation, transport: TransportName): Opcode => {
  const { code, name, kind, position, role, hasPayload } = operation
  const list = [...headersOfTransport(transport, role), ...operation.headers]
  const ends = position === 'last' || position === 'only'
  return {
    opcode: transportBits[transport] | code,
    name: `${transport}_${name}` as OpcodeName,
    transport,
    kind,
    position,
    role,
    headers: list,
    hasPayload,
    headerBytes: list.reduce<number>((sum, header) => sum + headers[header].bytes, headers.BTH.bytes),
    canBeSolicited: ends && (kind === 'send' || (kind === 'write' && list.includes('ImmDt'))),
  }
}

/** All opcodes, ascending. */
export const opcodes: readonly Opcode[] = [
  ...(Object.keys(transportBits) as TransportName[]).flatMap(transport =>
    (operations as readonly Operation[]).filter(o => o.transports.includes(transport)).map(o => describe(o, transport)),
  ),
  {
    opcode: CNP,
    name: 'CNP',
    kind: 'cnp',
    position: 'only',
    headers: [],
    hasPayload: true,
    headerBytes: headers.BTH.bytes,
    canBeSolicited: false,
  } satisfies Opcode,
].sort((a, b) => a.opcode - b.opcode)

/** The lower five bits of BTH.opcode by operation. */
export const operationCode = Object.fromEntries(operations.map(o => [o.name, o.code])) as Readonly<
  Record<OperationName, number>
>

/** By BTH.opcode; undefined for an undefined opcode. */
export const opcodeByNumber: readonly (Opcode | undefined)[] = Array.from({ length: 256 }, (_, number) =>
  opcodes.find(o => o.opcode === number),
)

export const opcodeNumber = Object.fromEntries(opcodes.map(o => [o.name, o.opcode])) as Readonly<
  Record<OpcodeName, number>
>

/** Bits of `opcodeFlags`. */
export const OP_REQUEST = 1 << 0
export const OP_RESPONSE = 1 << 1
/** The packet has an AETH. */
export const OP_ACK = 1 << 2
export const OP_FIRST = 1 << 3
export const OP_MIDDLE = 1 << 4
export const OP_LAST = 1 << 5
export const OP_ONLY = 1 << 6
export const OP_PAYLOAD = 1 << 7
export const OP_SEND = 1 << 8
export const OP_WRITE = 1 << 9
export const OP_READ = 1 << 10
/** Compare-and-swap, fetch-and-add and ATOMIC_ACK. */
export const OP_ATOMIC = 1 << 11
export const OP_FLUSH = 1 << 12
export const OP_ATOMIC_WRITE = 1 << 13
export const OP_IMM = 1 << 14
export const OP_INV = 1 << 15
/** The solicited-event bit is allowed. */
export const OP_SOLICITED = 1 << 16
export const OP_RETH = 1 << 17
export const OP_CNP = 1 << 18
/** First packet of a message. */
export const OP_START = OP_FIRST | OP_ONLY
/** Last packet of a message. */
export const OP_END = OP_LAST | OP_ONLY

const roleFlag = { request: OP_REQUEST, response: OP_RESPONSE } as const
const positionFlag = { first: OP_FIRST, middle: OP_MIDDLE, last: OP_LAST, only: OP_ONLY } as const
const kindFlag = {
  send: OP_SEND,
  write: OP_WRITE,
  read: OP_READ,
  atomic: OP_ATOMIC,
  flush: OP_FLUSH,
  atomic_write: OP_ATOMIC_WRITE,
  ack: 0,
  cnp: OP_CNP,
  connect: 0,
} as const

/** OP_… bits by BTH.opcode; 0 for an undefined opcode. */
export const opcodeFlags = new Uint32Array(256)

/** Bytes from the start of the BTH to the payload, by BTH.opcode; 0 for an undefined opcode. */
export const opcodeHeaderBytes = new Uint8Array(256)

/** By header and BTH.opcode: bytes from the start of the BTH to that header; 0 if the packet has no such header. */
export const headerAt: Readonly<Record<Exclude<HeaderName, 'BTH'>, Uint8Array>> = {
  RETH: new Uint8Array(256),
  AETH: new Uint8Array(256),
  AtomicETH: new Uint8Array(256),
  AtomicAckETH: new Uint8Array(256),
  DETH: new Uint8Array(256),
  ImmDt: new Uint8Array(256),
  IETH: new Uint8Array(256),
  FETH: new Uint8Array(256),
  XRCETH: new Uint8Array(256),
  SRDETH: new Uint8Array(256),
  SRDAETH: new Uint8Array(256),
  SRDNAK: new Uint8Array(256),
  DCETH: new Uint8Array(256),
  DCAETH: new Uint8Array(256),
}

for (const opcode of opcodes) {
  const flagIfHas = (header: HeaderName, flag: number): number => (opcode.headers.includes(header) ? flag : 0)
  opcodeFlags[opcode.opcode] =
    (opcode.role === undefined ? 0 : roleFlag[opcode.role]) |
    positionFlag[opcode.position] |
    kindFlag[opcode.kind] |
    (opcode.hasPayload ? OP_PAYLOAD : 0) |
    (opcode.canBeSolicited ? OP_SOLICITED : 0) |
    flagIfHas('AETH', OP_ACK) |
    flagIfHas('ImmDt', OP_IMM) |
    flagIfHas('IETH', OP_INV) |
    flagIfHas('RETH', OP_RETH)
  opcodeHeaderBytes[opcode.opcode] = opcode.headerBytes
  let at: number = headers.BTH.bytes
  for (const header of opcode.headers) {
    if (header !== 'BTH') headerAt[header][opcode.opcode] = at
    at += headers[header].bytes
  }
}

/** Position of the 32-bit word of a packet whose lower 24 bits name the sending queue pair; 0: it names none. */
export const sourceQpnAt = (opcode: number): number => {
  const { DETH, SRDETH, SRDAETH, SRDNAK, DCETH, DCAETH } = headerAt
  for (const header of [DETH, SRDETH]) if (header[opcode]! > 0) return header[opcode]! + 4
  if (DCAETH[opcode]! > 0) return DCAETH[opcode]! + 8
  return SRDAETH[opcode]! || SRDNAK[opcode]! || DCETH[opcode]!
}
