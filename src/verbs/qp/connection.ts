/*
 * Moves connected queue pairs from RESET to ready to send (IBA 10.3.1): the data that peers exchange, the options, and
 * the three steps as arguments of `modify`. Each class selects those of its service.
 */
import { secureRandom } from '../../host/random.ts'
import { AccessFlags, Mtu, QpState } from '../../spec/enums.ts'
import { addressText } from '../../wire/address.ts'
import { addressing, type PathOptions, pathOptionNames } from '../address.ts'
import { checkOptions, checkRecord, type KnownOptions } from '../checks/options.ts'
import { invalidArgument, namingOptions } from '../error.ts'
import { type Access, accessOptionNames } from '../mr/region.ts'
import type { PathFacts } from '../plan.ts'

/** The data with which a peer connects to a queue pair; plain data, which can be sent to the peer in any way. */
export interface Endpoint {
  /** The queue pair's number, 24 bits. */
  readonly qpn: number
  /** IPv4 or IPv6 address as text. */
  readonly gid: string
  /** On a link that has LIDs. */
  readonly lid?: number
  /** The first PSN that this side sends. */
  readonly psn: number
}

/** Options of `qp.connect`. */
export interface ConnectOptions extends PathOptions {
  /** Rights of the peer; default: all rights that registered regions grant. */
  readonly access?: Omit<Access, 'localWrite' | 'window' | 'zeroBased'>
  /** Path MTU in bytes: 256, 512, 1024, 2048 or 4096. Default: the port's. */
  readonly pathMtu?: number
}

/** Options of `qp.connect` for reliable connections. */
export interface RcConnectOptions extends ConnectOptions {
  /** Local ACK timeout, 4.096 µs · 2^n, 0 none; default 14 (67 ms). */
  readonly timeout?: number
  /** Retries after a timeout or loss before a request fails, 0–7; default 7. */
  readonly retryCount?: number
  /** RNR retries before a request fails, 0–7, 7 unlimited; default 7. */
  readonly rnrRetryCount?: number
  /** Time that a peer waits after an RNR NAK of this side, code 0–31; default 12 (0.64 ms). */
  readonly minRnrTimer?: number
  /** Maximum outstanding READs and atomics in each direction; default 16. */
  readonly maxRdAtomic?: number
}

export const connectOptionNames: KnownOptions<ConnectOptions> = { access: true, pathMtu: true, ...pathOptionNames }
export const rcConnectOptionNames: KnownOptions<RcConnectOptions> = {
  ...connectOptionNames,
  timeout: true,
  retryCount: true,
  rnrRetryCount: true,
  minRnrTimer: true,
  maxRdAtomic: true,
}

const { INIT, RTR, RTS } = QpState.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values

const accessOf = (access: ConnectOptions['access'] = {}): number => {
  checkOptions('qp.connect', 'access', access, accessOptionNames)
  const { remoteRead = true, remoteWrite = true, remoteAtomic = true } = access
  const { flushGlobal = true, flushPersistent = true } = access
  return (
    (remoteRead ? REMOTE_READ : 0) |
    (remoteWrite ? REMOTE_WRITE : 0) |
    (remoteAtomic ? REMOTE_ATOMIC : 0) |
    (flushGlobal ? FLUSH_GLOBAL : 0) |
    (flushPersistent ? FLUSH_PERSISTENT : 0)
  )
}

const mtuCode = (bytes: number): number => {
  const code = Math.log2(bytes) - 7
  if (Object.values(Mtu.values).includes(code as 1)) return code
  throw invalidArgument('qp.connect', `pathMtu ${bytes}: it is 256, 512, 1024, 2048 or 4096`)
}

/** A first PSN that cannot be guessed from an earlier one. */
export const firstPsn = (): number => secureRandom() >>> 8

/** A queue pair created in connected state, to an existing peer (R7). */
export interface PeerOptions<O extends ConnectOptions> {
  /** The peer's endpoint. */
  readonly peer?: Endpoint
  /** As for `qp.connect`. */
  readonly connection?: O
}

/** The attributes of several steps in one creation, with the final state. */
export const combineSteps = <A extends object>(steps: readonly A[]): A => Object.assign({}, ...steps)

const TWO_24 = 2 ** 24

/** Checked before the first step, so that an invalid peer changes nothing. */
const checkNumbers = (peer: Endpoint): void => {
  for (const name of ['qpn', 'psn'] as const) {
    const value = peer[name]
    if (!Number.isInteger(value) || value < 0 || value >= TWO_24)
      throw invalidArgument(
        'qp.connect',
        `${name} ${String(value)} is not a number of 24 bits`,
        "give the peer's `endpoint`",
      )
  }
}

/**
 * RESET → INIT → RTR → RTS with what every connected service needs. `psn`: the first PSN of this side; `known`: the
 * option names of the service.
 */
export const connectSteps = (
  path: PathFacts,
  psn: number,
  peer: Endpoint,
  options: ConnectOptions = {},
  known: object = connectOptionNames,
) => {
  checkOptions('qp.connect', 'options', options, known)
  checkRecord('qp.connect', 'peer', peer, "give the peer's `endpoint`: { qpn, gid, psn }")
  const where = addressing('qp.connect', path, peer, options)
  checkNumbers(peer)
  return {
    init: { state: INIT, pkeyIndex: 0, port: 1, accessFlags: accessOf(options.access) },
    rtr: {
      state: RTR,
      ...where,
      pathMtu: mtuCode(options.pathMtu ?? path.pathMtu),
      destQpn: peer.qpn,
      rqPsn: peer.psn,
    },
    rts: { state: RTS, sqPsn: psn },
  }
}

/** The attributes of the options. */
export const qpOptions = {
  retryCnt: 'retryCount',
  rnrRetry: 'rnrRetryCount',
  maxDestRdAtomic: 'maxRdAtomic',
  destQpn: 'qpn',
  rqPsn: 'psn',
  sqPsn: 'psn',
}

/**
 * Further attributes of services with acknowledgements: `responder` for RTR, `requester` for RTS. An XRC target has no
 * requester: for RTS it needs only `timeout`.
 */
export const reliableSteps = (options: RcConnectOptions = {}) => {
  const { timeout = 14, retryCount = 7, rnrRetryCount = 7, minRnrTimer = 12, maxRdAtomic = 16 } = options
  return {
    responder: { maxDestRdAtomic: maxRdAtomic, minRnrTimer },
    requester: { timeout, retryCnt: retryCount, rnrRetry: rnrRetryCount, maxRdAtomic },
    timeout: { timeout },
  }
}

/** A queue pair with one peer. */
export interface Connected<O extends ConnectOptions> {
  /** The data with which the peer connects to the queue pair. */
  readonly endpoint: Endpoint
  /** Connects it to a peer: RESET to ready to send. Throws RdmaError EINVAL, and stays in RESET. */
  connect(peer: Endpoint, options?: O): void
}

/** The data with which a peer connects to a queue pair. */
export const endpointOf = ({ gid, lid }: PathFacts, { qpn, psn }: { qpn: number; psn: number }): Endpoint => ({
  qpn,
  gid: addressText(gid),
  psn,
  ...(lid !== undefined && { lid }),
})

/** Moves a queue pair through steps; back to RESET if one after the first fails. */
export const connectBy = (qp: { modify(step: object): void }, steps: readonly object[]): void =>
  namingOptions(qpOptions, () => {
    let done = 0
    try {
      for (const step of steps) {
        qp.modify(step)
        done++
      }
    } catch (error) {
      if (done > 0) qp.modify({ state: QpState.values.RESET })
      throw error
    }
  })
