/*
 * Connection managers in virtual time. Messages wait in `wire` until the test delivers, loses or repeats them.
 */
import { createRandom } from '../../../src/base/random.ts'
import type { CmConnection, CmOffer, CmPath, CmRequest } from '../../../src/services/cm-engine/connection.ts'
import { CmEngine } from '../../../src/services/cm-engine/engine.ts'
import type { CmEvent } from '../../../src/services/cm-engine/machine.ts'
import { Mtu } from '../../../src/spec/enums.ts'
import { type CmMessage, parseCm } from '../../../src/transport/wire/mad/mad.ts'

/** ::ffff:10.0.0.HOST */
export const gid = (host: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, host)

export const pathTo = (from: number, to: number): CmPath => ({
  device: 0,
  localGid: gid(from),
  remoteGid: gid(to),
  pkey: 0xffff,
  mtu: Mtu.values.MTU_1024,
  flowLabel: 0x1234,
  trafficClass: 0,
  hopLimit: 64,
  sl: 0,
  packetLifeTime: 16, // 4.096 µs · 2^16
})

/** The number of the other host of a pair. */
export const peerOf = (host: number): number => 3 - host

/** A message between hosts; `from` and `to` are host numbers. */
export interface OnWire {
  readonly from: number
  readonly to: number
  readonly mad: Uint8Array
}

export class Host {
  readonly engine: CmEngine
  readonly number: number
  /** `CmEnvironment.firstRepetition`. */
  firstRepetition = 0

  constructor(number: number, random = createRandom(number)) {
    this.number = number
    this.engine = new CmEngine({
      random,
      caGuid: () => BigInt(0x100 + number),
      ackDelay: () => 15, // 4.096 µs · 2^15
      firstRepetition: () => this.firstRepetition,
      hasGid: (_device, other) => other.every((byte, i) => byte === gid(number)[i]),
    })
  }

  /** All events since the last call. */
  events(): CmEvent[] {
    const events: CmEvent[] = []
    for (let event = this.engine.pollEvent(); event; event = this.engine.pollEvent()) events.push(event)
    return events
  }
}

export class Pair {
  now = 0
  readonly a = new Host(1)
  readonly b = new Host(2)
  /** Undelivered messages. */
  readonly wire: OnWire[] = []

  /** Moves sent messages to the wire; returns the wire. */
  collect(): OnWire[] {
    for (const { number, engine } of [this.a, this.b]) {
      for (let sent = engine.pollTransmit(); sent; sent = engine.pollTransmit()) {
        this.wire.push({ from: number, to: sent.path.remoteGid[15] ?? 0, mad: sent.mad })
      }
    }
    return this.wire
  }

  /** Removes all messages from the wire, and returns their names. */
  lose(): string[] {
    this.collect()
    return this.wire.splice(0).map(({ mad }) => parseCm(mad)?.name ?? '?')
  }

  deliver({ from, to, mad }: OnWire): void {
    const host = to === 1 ? this.a : this.b
    host.engine.onMad(mad, pathTo(to, from), this.now)
  }

  /** Delivers until the wire is empty; returns the messages, as `1:REQ`. */
  exchange(): string[] {
    const names: string[] = []
    for (this.collect(); this.wire.length > 0; this.collect()) {
      const next = this.wire.shift()!
      names.push(`${next.from}:${parseCm(next.mad)?.name}`)
      this.deliver(next)
    }
    return names
  }

  /** Advances time to the next timeout of either side. */
  expire(): void {
    this.now = Math.min(this.a.engine.nextTimeout(), this.b.engine.nextTimeout())
    this.a.engine.onTimeout(this.now)
    this.b.engine.onTimeout(this.now)
  }
}

/** The service id of port 18515 in RDMA_PS_TCP. */
export const SERVICE = 0x0106_0000n + 18515n

export const offer = (qpn: number): CmOffer => ({
  qpn,
  startingPsn: 0x1000 + qpn,
  responderResources: 4,
  initiatorDepth: 2,
  rnrRetryCount: 7,
  srq: true,
})

export const request = (qpn: number, overrides: Partial<CmRequest> = {}): CmRequest => ({
  ...offer(qpn),
  path: pathTo(1, 2),
  serviceId: SERVICE,
  transport: 'RC',
  retryCount: 7,
  remoteResponseTimeout: 20,
  localResponseTimeout: 20,
  maxCmRetries: 15,
  privateData: Uint8Array.of(1, 2, 3),
  ...overrides,
})

export const parsed = (wire: readonly OnWire[]): CmMessage[] => wire.map(({ mad }) => parseCm(mad)!)

/** Both ends of an established connection of host 1 (active) and host 2 (passive). */
export const established = (
  pair: Pair,
  qpns: readonly [number, number] = [0x11, 0x22],
): [CmConnection, CmConnection] => {
  const active = pair.a.engine.create(pathTo(1, 2))
  pair.a.engine.connect(active, request(qpns[0]), pair.now)
  pair.exchange()
  const passive = pair.b.events().at(-1)!.connection
  pair.b.engine.reply(passive, offer(qpns[1]), pair.now)
  pair.exchange()
  pair.a.engine.ready(active)
  pair.exchange()
  pair.a.events()
  pair.b.events()
  return [active, passive]
}
