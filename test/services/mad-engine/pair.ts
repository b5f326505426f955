/*
 * Agents in virtual time. Datagrams wait in `wire` until the test delivers, loses or repeats them.
 */
import { type AgentOptions, MadAgentEngine, type SendOutcome } from '../../../src/services/mad-engine/agent.ts'
import type { MadPath } from '../../../src/services/mad-engine/path.ts'
import { MAD_BASE_VERSION, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { MadClass, RMPP_VERSION, RmppFlag, RmppType } from '../../../src/spec/wire/management.ts'
import { emitRmpp, parseRmpp } from '../../../src/transport/wire/mad/management.ts'
import { gid } from '../cm-engine/pair.ts'

/** Microseconds. */
export const SECOND = 1_000_000
/** Bytes of the headers of a subnet administration message: MAD (24), RMPP (12), SA (20). */
export const SA_HEADERS = 56

/** An undelivered datagram. */
export interface OnWire {
  readonly to: Agent
  readonly mad: Uint8Array
}

interface ReceivedMessage {
  readonly message: Uint8Array
  readonly from: MadPath
}

class Agent {
  readonly engine: MadAgentEngine<MadPath, string>
  readonly received: ReceivedMessage[] = []
  readonly ended: (readonly [tag: string, outcome: SendOutcome])[] = []
  readonly host: number

  constructor(pair: Pair, host: number, options: Partial<AgentOptions>) {
    this.host = host
    this.engine = new MadAgentEngine(
      { highTid: host, engineDoesRmpp: true, ...options },
      {
        transmit: mad => {
          pair.wire.push({ to: pair.other(this), mad: mad.slice() })
        },
        wakeAt: () => {},
        deliver: (message, from) => void this.received.push({ message, from }),
        ended: (tag, outcome) => void this.ended.push([tag, outcome]),
      },
    )
  }
}

export class Pair {
  now = 0
  readonly wire: OnWire[] = []
  readonly a: Agent
  readonly b: Agent

  constructor(a: Partial<AgentOptions> = {}, b: Partial<AgentOptions> = a) {
    this.a = new Agent(this, 1, a)
    this.b = new Agent(this, 2, b)
  }

  other(agent: Agent): Agent {
    return agent === this.a ? this.b : this.a
  }

  /** The path from `agent` to the other agent. */
  pathOf(agent: Agent): MadPath {
    return { localGid: gid(agent.host), remoteGid: gid(this.other(agent).host), qpn: 1 }
  }

  send(agent: Agent, message: Uint8Array, timeout = SECOND, retries = 0, tag = 'message'): boolean {
    return agent.engine.send(message.slice(), this.pathOf(agent), { timeout, retries, tag }, this.now)
  }

  deliver({ to, mad }: OnWire): void {
    to.engine.onMad(mad, this.pathOf(to), this.now)
  }

  /** Delivers datagrams until none is on the wire. */
  settle(isLost: () => boolean = () => false): void {
    for (let sent = this.wire.shift(); sent !== undefined; sent = this.wire.shift()) if (!isLost()) this.deliver(sent)
  }

  /** Advances time to the next timer. Returns false if there is none. */
  tick(): boolean {
    const due = Math.min(this.a.engine.nextTimeout(), this.b.engine.nextTimeout())
    if (due === Number.POSITIVE_INFINITY) return false
    this.now = Math.max(this.now, due)
    for (const { engine } of [this.a, this.b]) engine.onTimeout(this.now)
    return true
  }
}

/** Offset of the lower half of the transaction id in a datagram. */
export const TID_LOW = 12

export const plainMad = (mgmtClass: number, method: number, tid: number): Uint8Array => {
  const mad = new Uint8Array(MAD_BYTES)
  mad.set([MAD_BASE_VERSION, mgmtClass, 1, method])
  new DataView(mad.buffer).setUint32(TID_LOW, tid)
  return mad
}

/** A message of subnet administration with `length` bytes after the headers. */
export const longMessage = (method: number, tid: number, length: number): Uint8Array => {
  const header = plainMad(MadClass.SUBNET_ADMINISTRATION, method, tid).subarray(0, SA_HEADERS)
  const fields = { version: RMPP_VERSION, type: RmppType.DATA, flags: RmppFlag.ACTIVE }
  const message = new Uint8Array(SA_HEADERS + length)
  message.set(emitRmpp(header, fields).subarray(0, SA_HEADERS))
  for (let i = 0; i < length; i++) message[SA_HEADERS + i] = (i * 7 + (i >> 8)) & 0xff
  return message
}

/** A segment as text: `DATA 3 last of 30` (length in the RMPP header), `ACK 3 window 65`, `ABORT 118` (status). */
export const segmentText = ({ mad }: Pick<OnWire, 'mad'>): string => {
  const { type, segment, lengthOrWindow, status, flags } = parseRmpp(mad)
  const [name = String(type)] = Object.entries(RmppType).find(([, value]) => value === type) ?? []
  if (type === RmppType.DATA) {
    const ends = `${flags & RmppFlag.FIRST ? ' first' : ''}${flags & RmppFlag.LAST ? ' last' : ''}`
    return `DATA ${segment}${ends}${lengthOrWindow > 0 ? ` of ${lengthOrWindow}` : ''}`
  }
  return type === RmppType.ACK ? `ACK ${segment} window ${lengthOrWindow}` : `${name} ${status}`
}
