/*
 * What kind `late` of torment (transport/phy/faults/late-requests.ts) asks the devices of a network: what is lent, how
 * long a request may wait, and when its queue pair ends.
 */
import { isQueuePair } from '../../../core/driver-contract.ts'
import type { MemoryTable } from '../../../core/memory/region-table.ts'
import type { CoreObject, Entry, HandlerValues } from '../../../core/model.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { QpState } from '../../../spec/enums.ts'
import { ackTimeouts } from '../../../spec/work.ts'
import type { LateRequests } from '../../../transport/phy/faults/late-requests.ts'
import type { TormentSite } from '../../../transport/phy/faults/torment-packets.ts'
import type { SoftState } from '../state.ts'
import type { TormentedObject } from './objects.ts'

/** The longest wait of a request whose requester has no ACK timeout, and of all others, µs. */
const NO_TIMEOUT_WAIT = 200_000
const MAX_WAIT = 1_000_000

const { RESET, ERR } = QpState.values
const CONNECTED: ReadonlySet<string> = new Set(['rc_qp', 'uc_qp', 'xrc_ini_qp', 'xrc_tgt_qp'])

/** A queue pair that is connected to one other. */
interface Connected {
  readonly destQpn: number
  /** Its ACK timeout, µs; Infinity: it has none. */
  readonly timeout: number
}

/** A device under torment. */
interface LateDevice {
  readonly memory: MemoryTable
  now(): number
  objectOf(qpn: number): TormentedObject
  /** Undefined: there is none, or it is not of a connected service. */
  connected(qpn: number): Connected | undefined
  /**
   * Whether a queue pair gets requests of several others, which say their numbers, and which are sent again without
   * end.
   */
  hasSenders(qpn: number): boolean
}

/** The connected queue pairs of a soft device. */
export const connectedOf =
  ({ qps, qpns, engine }: SoftState): LateDevice['connected'] =>
  qpn => {
    const row = qpns.rowOf(qpn)
    const qp = qps[row]
    if (qp === undefined || !CONNECTED.has(qp.class.name)) return undefined
    const { destQpn, timeout } = engine().query(row)
    return {
      destQpn,
      timeout: qp.class.name === 'uc_qp' || timeout === 0 ? Number.POSITIVE_INFINITY : ackTimeouts[timeout]!,
    }
  }

interface LateSites {
  /** The site of a device, which may be added later. */
  site(device: string): TormentSite
  /** `late`: its requests that wait; undefined: none do. */
  add(name: string, device: LateDevice, late: LateRequests | undefined): void
  remove(name: string): void
  /** A call may end a queue pair of a device. */
  calling(name: string, entry: Entry, object: CoreObject, args: HandlerValues): void
}

export const createLateSites = (): LateSites => {
  const devices = new Map<string, { readonly device: LateDevice; readonly late: LateRequests | undefined }>()

  /** The ACK timeout of the queue pair that is connected to this one; that of this one if it is not of this network. */
  const timeoutOf = (qpn: number, { destQpn, timeout }: Connected): number => {
    for (const { device } of devices.values()) {
      const other = device.connected(destQpn)
      if (other?.destQpn === qpn) return other.timeout
    }
    return timeout
  }

  const maxWait = (device: LateDevice, qpn: number): number => {
    if (device.hasSenders(qpn)) return NO_TIMEOUT_WAIT
    const connected = device.connected(qpn)
    if (connected === undefined) return 0
    const timeout = timeoutOf(qpn, connected)
    return timeout === Number.POSITIVE_INFINITY ? NO_TIMEOUT_WAIT : Math.min(MAX_WAIT, timeout / 2)
  }

  return {
    site(name) {
      const deviceOf = (): LateDevice | undefined => devices.get(name)?.device
      return {
        objectOf: qpn => deviceOf()?.objectOf(qpn).name,
        now: () => deviceOf()?.now() ?? 0,
        maxWait(qpn) {
          const device = deviceOf()
          return device?.memory.lentWatch === undefined ? 0 : maxWait(device, qpn)
        },
        watch: (qpn, { key, hi, lo, length, isRead }, onUse) =>
          deviceOf()?.memory.lentWatch?.watch(key, hi, lo, length, qpn, isRead, onUse),
        update: () => deviceOf()?.memory.lentWatch?.update(),
      }
    },
    add(name, device, late) {
      devices.set(name, { device, late })
    },
    remove(name) {
      devices.delete(name)
    },
    calling(name, entry, object, { state }) {
      if (!isQueuePairClass(entry.class.name) || !isQueuePair(object)) return
      const { qpn } = object.state
      const own = devices.get(name)
      if (own === undefined || qpn === undefined) return
      if (entry.name === 'destroy') own.late?.receiverEnds(qpn)
      if (entry.name !== 'destroy' && state !== RESET && state !== ERR) return
      const connected = own.device.connected(qpn)
      for (const { device, late } of devices.values())
        late?.requesterEnds((to, sender) =>
          connected === undefined
            ? sender === qpn && own.device.hasSenders(qpn)
            : to === connected.destQpn && device.connected(to)?.destQpn === qpn,
        )
    },
  }
}
