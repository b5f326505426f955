/*
 * Moves connected queue pairs from RESET to RTS (IBA 10.3.1): the endpoints that peers exchange, the options of
 * `connect`, and the arguments of `modify` for each of the three steps.
 */
import { secureRandom } from '../../../host/random.ts'
import { AccessFlags, QpState } from '../../../spec/enums.ts'
import { addressText } from '../../../transport/wire/address.ts'
import { addressing, type PathOptions, pathOptionNames } from '../address.ts'
import { checkOptions, checkRecord, type KnownOptions } from '../arguments/options.ts'
import { formatValue, invalidArgument, withOptionNames } from '../error.ts'
import { type Access, peerAccessNames } from '../mr/region.ts'
import { orElse } from '../objects/show.ts'
import type { LocalPath } from '../plan.ts'
import { mtuCode } from './attributes.ts'

/** What a peer needs to connect to a queue pair; plain data, to be sent to the peer in any way. */
export interface Endpoint {
  /** Number of the queue pair, 24 bits. */
  readonly qpn: number
  /** IPv4 or IPv6 address as text. */
  readonly gid: string
  /** LID of the port, on InfiniBand and Omni-Path. */
  readonly lid?: number
  /** The first PSN that this queue pair sends, 24 bits. */
  readonly psn: number
}

/** Options of `qp.connect`. */
export interface ConnectOptions extends PathOptions {
  /** Rights of the peer at this queue pair. Default of each: true, so only the regions' rights limit the peer. */
  readonly access?: Omit<Access, 'localWrite' | 'mwBind' | 'zeroBased' | 'relaxedOrdering'> | undefined
  /** Index of the queue pair's partition key in the port's table, on InfiniBand. Default: 0. */
  readonly pkeyIndex?: number | undefined
  /** Path MTU in bytes: 256, 512, 1024, 2048 or 4096. Default: the port's. */
  readonly pathMtu?: number | undefined
}

/** Timeouts and retries of a reliable connection. */
export interface RetryOptions {
  /**
   * Local ACK timeout in milliseconds, 0 to 8,796,093; 0: none. The device has timeouts of 4.096 µs · 2^n: the next
   * larger one is used. Default of `qp.connect` 67 ms, of connections by address 2.1 s.
   */
  readonly ackTimeout?: number | undefined
  /**
   * Local ACK timeout as its exponent n, 0–31; 0: none. In place of `ackTimeout`. Default of `qp.connect` 14, of
   * connections by address 19.
   */
  readonly ackTimeoutExponent?: number | undefined
  /** Retries after a timeout or a loss until a request fails, 0–7; default 7. */
  readonly retryCount?: number | undefined
  /** Retries after an RNR NAK until a request fails, 0–7; 7: unlimited. Default 7. */
  readonly rnrRetryCount?: number | undefined
  /** Wait of the peer after an RNR NAK from this queue pair, a code 0–31 (IBA 9.7.5.2.8); default 12 (0.64 ms). */
  readonly minRnrTimer?: number | undefined
}

/** Options of `qp.connect` for reliable connections. */
export interface RcConnectOptions extends ConnectOptions, RetryOptions {
  /** Maximum outstanding READs and atomics in each direction; default 16. */
  readonly maxRdAtomic?: number | undefined
}

const connectOptionNames: KnownOptions<ConnectOptions> = {
  access: true,
  pkeyIndex: true,
  pathMtu: true,
  ...pathOptionNames,
}
export const retryOptionNames: KnownOptions<RetryOptions> = {
  ackTimeout: true,
  ackTimeoutExponent: true,
  retryCount: true,
  rnrRetryCount: true,
  minRnrTimer: true,
}
export const rcConnectOptionNames: KnownOptions<RcConnectOptions> = {
  ...connectOptionNames,
  ...retryOptionNames,
  maxRdAtomic: true,
}

const { INIT, RTR, RTS } = QpState.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values

/** The rights of the peer as ibv_access_flags. */
const accessOf = (access: ConnectOptions['access'] = {}): number => {
  checkOptions('qp.connect', 'access', access, peerAccessNames)
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

/** A random first PSN, 24 bits. */
export const firstPsn = (): number => secureRandom() >>> 8

/** Options that create a queue pair in RTS, connected to a peer. */
export interface PeerOptions<O extends ConnectOptions> {
  /** The peer's endpoint. */
  readonly peer?: Endpoint | undefined
  /** Options as for `qp.connect`; only with `peer`. */
  readonly connection?: O | undefined
}

/** The attributes of all steps with the state of the last step, for `create`. */
export const combineSteps = <A extends object>(steps: readonly A[]): A => Object.assign({}, ...steps)

/** Queue pair numbers and PSNs have 24 bits. */
export const TWO_24 = 2 ** 24

/** Throws RdmaError EINVAL for an invalid qpn or psn, before the first step has changed the queue pair. */
const checkNumbers = (peer: Endpoint): void => {
  for (const name of ['qpn', 'psn'] as const) {
    const value = peer[name]
    if (!Number.isInteger(value) || value < 0 || value >= TWO_24)
      throw invalidArgument(
        'qp.connect',
        `${name} ${formatValue(value)} is not a number of 24 bits`,
        "give the peer's `endpoint`",
      )
  }
}

/**
 * The arguments of `modify` to INIT, RTR and RTS that every connected service needs. `psn`: the first PSN that this
 * side sends; `known`: the names of the service's options. Throws RdmaError EINVAL.
 */
export const connectSteps = (
  path: LocalPath,
  psn: number,
  peer: Endpoint,
  options: ConnectOptions = {},
  known: object = connectOptionNames,
) => {
  checkOptions('qp.connect', 'options', options, known)
  checkRecord('qp.connect', 'peer', peer, "give the peer's `endpoint`: { qpn, gid, psn }")
  const address = addressing('qp.connect', path, peer, options)
  checkNumbers(peer)
  const { access, pkeyIndex = 0, pathMtu = path.pathMtu } = options
  return {
    init: { state: INIT, pkeyIndex, port: 1, accessFlags: accessOf(access) },
    rtr: {
      state: RTR,
      ...address,
      pathMtu: mtuCode('qp.connect', pathMtu),
      destQpn: peer.qpn,
      rqPsn: peer.psn,
    },
    rts: { state: RTS, sqPsn: psn },
  }
}

/** An exponent of 5 bits means 4.096 µs · 2^n; 14: 67 ms. */
const MAX_EXPONENT = 31
const DEFAULT_EXPONENT = 14
const MAX_ACK_TIMEOUT = Math.floor(0.004096 * 2 ** MAX_EXPONENT)

/** The exponent of the local ACK timeout. Throws RdmaError EINVAL. */
export const ackTimeoutExponentOf = (
  call: string,
  { ackTimeout, ackTimeoutExponent }: RetryOptions,
  defaultExponent = DEFAULT_EXPONENT,
): number => {
  if (ackTimeout === undefined) return ackTimeoutExponent === undefined ? defaultExponent : ackTimeoutExponent
  if (ackTimeoutExponent !== undefined)
    throw invalidArgument(call, 'ackTimeout and ackTimeoutExponent exclude each other', 'give one of them')
  if (typeof ackTimeout !== 'number' || !(ackTimeout >= 0 && ackTimeout <= MAX_ACK_TIMEOUT))
    throw invalidArgument(call, `ackTimeout ${formatValue(ackTimeout)} is not in 0 to ${MAX_ACK_TIMEOUT} milliseconds`)
  return ackTimeout === 0 ? 0 : Math.max(1, Math.ceil(Math.log2(ackTimeout / 0.004096)))
}

/** The names of the options by their attributes, see `OptionNames`. */
export const optionsByQpAttribute = {
  timeout: 'ackTimeoutExponent',
  retryCnt: 'retryCount',
  rnrRetry: 'rnrRetryCount',
  maxDestRdAtomic: 'maxRdAtomic',
  destQpn: 'qpn',
  rqPsn: 'psn',
  sqPsn: 'psn',
}

/**
 * Attributes of reliable services only: `responder` for RTR, `requester` for RTS. An XRC target has no requester, and
 * needs only `timeout` for RTS.
 */
export const reliableSteps = (options: RcConnectOptions = {}) => {
  const timeout = ackTimeoutExponentOf('qp.connect', options)
  const { retryCount = 7, rnrRetryCount = 7, minRnrTimer = 12, maxRdAtomic = 16 } = options
  return {
    responder: { maxDestRdAtomic: maxRdAtomic, minRnrTimer },
    requester: { timeout, retryCnt: retryCount, rnrRetry: rnrRetryCount, maxRdAtomic },
    timeout: { timeout },
  }
}

/** A queue pair with one peer. */
export interface Connectable<O extends ConnectOptions> {
  /** What the peer needs to connect to the queue pair. */
  readonly endpoint: Endpoint
  /**
   * Connects the queue pair to a peer: moves it from RESET to RTS. If a step after the first fails, the queue pair
   * moves back to RESET. Throws RdmaError EINVAL.
   */
  connect(peer: Endpoint, options?: O): void
}

export const endpointOf = ({ gid, lid }: LocalPath, { qpn, psn }: { qpn: number; psn: number }): Endpoint => ({
  qpn,
  gid: addressText(gid),
  psn,
  ...(lid !== undefined && { lid }),
})

/** Throws RdmaError EINVAL if the queue pair is connected or active: a clearer reason than that of the refused step. */
const refuseIfConnected = (call: string, qp: { readonly state: string }): void => {
  const state = orElse(() => qp.state, '')
  if (!['RTR', 'RTS', 'SQD', 'SQE'].includes(state)) return
  const what = call === 'qp.connect' ? 'connected' : 'active'
  throw invalidArgument(
    call,
    `the queue pair is ${what} already: it is in ${state}`,
    'modify({ state: "RESET" }) first',
  )
}

/**
 * Moves a queue pair in RESET through `steps`, arguments of `modify`; back to RESET if a step after the first fails.
 * Throws RdmaError EINVAL if a state does not allow it.
 */
export const modifyInSteps = (
  call: string,
  qp: { readonly state: string; modify(step: object): void },
  steps: readonly object[],
): void =>
  withOptionNames(optionsByQpAttribute, () => {
    let completedSteps = 0
    try {
      for (const step of steps) {
        qp.modify(step)
        completedSteps++
      }
    } catch (error) {
      // The program gets the error of the step, also if the move to RESET fails.
      if (completedSteps > 0) orElse(() => qp.modify({ state: QpState.values.RESET }), undefined)
      else refuseIfConnected(call, qp)
      throw error
    }
  })
