/*
 * How connected queue pairs get from RESET to ready to send (IBA 10.3.1): what peers tell each other, what can be
 * chosen, and the three steps as arguments of `modify`. Which service takes which of it is the class's business.
 */
import { secureRandom } from '../../host/random.ts'
import { AccessFlags, Mtu, QpState } from '../../spec/enums.ts'
import { addressText } from '../../wire/address.ts'
import { addressing, type PathOptions, pathWords } from '../address.ts'
import { checkOptions, checkRecord, type Words } from '../checks/options.ts'
import { invalidArgument, withOptionWords } from '../error.ts'
import { type Access, accessWords } from '../mr/region.ts'
import type { PathFacts } from '../plan.ts'

/** What a peer must know to connect: plain data, to be sent to it in any way. */
export interface Endpoint {
  /** The queue pair's number, 24 bits. */
  readonly qpn: number
  /** IPv4 or IPv6 address as text. */
  readonly gid: string
  /** On a link that has them. */
  readonly lid?: number
  /** The first packet sequence number that this side sends. */
  readonly psn: number
}

/** Options of `qp.connect`. */
export interface ConnectOptions extends PathOptions {
  /** Rights of the peer; default: what registered regions grant, all of it. */
  readonly access?: Omit<Access, 'localWrite' | 'window' | 'zeroBased'>
  /** Bytes of payload in a packet: 256, 512, 1024, 2048 or 4096. Default: what the port allows. */
  readonly pathMtu?: number
}

/** Options of `qp.connect` for reliable connections. */
export interface RcConnectOptions extends ConnectOptions {
  /** Local ACK timeout, 4.096 µs · 2^n, 0 none; default 14 (67 ms). */
  readonly timeout?: number
  /** Resends before a request fails, 0–7; default 7. */
  readonly retryCount?: number
  /** Tries while the peer has no receive posted, 0–7, 7 without end; default 7. */
  readonly rnrRetryCount?: number
  /** What a peer waits before it tries again when nothing is posted here, code 0–31; default 12 (0.64 ms). */
  readonly minRnrTimer?: number
  /** READs and atomics under way at once, of either side; default 16. */
  readonly maxRdAtomic?: number
}

export const connectWords: Words<ConnectOptions> = { access: true, pathMtu: true, ...pathWords }
export const rcConnectWords: Words<RcConnectOptions> = {
  ...connectWords,
  timeout: true,
  retryCount: true,
  rnrRetryCount: true,
  minRnrTimer: true,
  maxRdAtomic: true,
}

const { INIT, RTR, RTS } = QpState.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values

const accessOf = (access: ConnectOptions['access'] = {}): number => {
  checkOptions('qp.connect', 'access', access, accessWords)
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

/** A first packet sequence number that nobody can guess from an earlier one. */
export const firstPsn = (): number => secureRandom() >>> 8

/** A queue pair that is made connected, with one call, to a peer that is there already (R7). */
export interface PeerOptions<O extends ConnectOptions> {
  /** The peer's endpoint. */
  readonly peer?: Endpoint
  /** As for `qp.connect`. */
  readonly connection?: O
}

/** Steps from state to state as one: what a creation takes to make all of them. */
export const combineSteps = <A extends object>(steps: readonly A[]): A => Object.assign({}, ...steps)

const TWO_24 = 2 ** 24

/** Before the first step, so that nothing has happened if a peer cannot be one. */
const checkNumbers = (peer: Endpoint): void => {
  for (const name of ['qpn', 'psn'] as const) {
    const value = peer[name]
    if (!Number.isInteger(value) || value < 0 || value >= TWO_24)
      throw invalidArgument(
        'qp.connect',
        `${name} ${String(value)} is no number of 24 bits`,
        "give the peer's `endpoint`",
      )
  }
}

/**
 * RESET → INIT → RTR → RTS with what every connected service needs. `psn`: the first that this side sends; `words`:
 * the options that the service has.
 */
export const connectSteps = (
  path: PathFacts,
  psn: number,
  peer: Endpoint,
  options: ConnectOptions = {},
  words: object = connectWords,
) => {
  checkOptions('qp.connect', 'options', options, words)
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

/** Attributes that options become. */
export const qpOptions = {
  retryCnt: 'retryCount',
  rnrRetry: 'rnrRetryCount',
  maxDestRdAtomic: 'maxRdAtomic',
  destQpn: 'qpn',
  rqPsn: 'psn',
  sqPsn: 'psn',
}

/** What a side that acknowledges, and one that asks for acknowledgements, needs besides. */
export const reliableSteps = (options: RcConnectOptions = {}) => {
  const { timeout = 14, retryCount = 7, rnrRetryCount = 7, minRnrTimer = 12, maxRdAtomic = 16 } = options
  return {
    answering: { maxDestRdAtomic: maxRdAtomic, minRnrTimer },
    asking: { timeout, retryCnt: retryCount, rnrRetry: rnrRetryCount, maxRdAtomic },
    timeout: { timeout },
  }
}

/** A queue pair that sends to one peer. */
export interface Connected<O extends ConnectOptions> {
  /** What the peer must know to connect to it. */
  readonly endpoint: Endpoint
  /** From RESET to ready to send, towards a peer. Throws RdmaError EINVAL, and stays in RESET then. */
  connect(peer: Endpoint, options?: O): void
}

/** What the peer of a queue pair must know. */
export const endpointOf = ({ gid, lid }: PathFacts, { qpn, psn }: { qpn: number; psn: number }): Endpoint => ({
  qpn,
  gid: addressText(gid),
  psn,
  ...(lid !== undefined && { lid }),
})

/** Takes a queue pair through steps; back to RESET if one fails after the first. */
export const connectBy = (qp: { modify(step: object): void }, steps: readonly object[]): void =>
  withOptionWords(qpOptions, () => {
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
