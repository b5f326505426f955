/*
 * The state machine of the InfiniBand connection manager as a table (InfiniBand Architecture Specification, volume 1,
 * clauses 12.9 and 12.11). States and events have the names of Linux's ib_cm.h; docs/reference/connection-manager.md
 * lists the differences from ib_cm. The consumer is rdma_cm (src/services/rdma-cm).
 */
import type { CmMessageName, rejReason } from '../../spec/wire/mad.ts'

/**
 * Listeners have no state: a REQ or SIDR_REQ creates a connection in REQ_RCVD or SIDR_REQ_RCVD. LAP and APR change no
 * state: alternate paths are not accepted.
 */
export type CmState =
  | 'IDLE'
  | 'REQ_SENT'
  | 'MRA_REQ_RCVD'
  | 'REQ_RCVD'
  | 'MRA_REQ_SENT'
  | 'REP_RCVD'
  | 'MRA_REP_SENT'
  | 'REP_SENT'
  | 'MRA_REP_RCVD'
  | 'ESTABLISHED'
  | 'DREQ_SENT'
  | 'DREQ_RCVD'
  | 'TIMEWAIT'
  | 'SIDR_REQ_SENT'
  | 'SIDR_REQ_RCVD'

/**
 * Events for the consumer. _RECEIVED: a message was received. _ERROR: a message was not answered. USER_ESTABLISHED:
 * the consumer's command ESTABLISH was executed.
 */
export type CmEventName =
  | `${Exclude<CmMessageName, 'LAP' | 'APR'>}_RECEIVED`
  | 'REQ_ERROR'
  | 'REP_ERROR'
  | 'DREQ_ERROR'
  | 'SIDR_REQ_ERROR'
  | 'USER_ESTABLISHED'
  | 'TIMEWAIT_EXIT'

/** Commands of the consumer. ESTABLISH: data arrived before the RTU (ib_cm_notify); the others send a message. */
export type CmCommand = 'REQ' | 'MRA' | 'REP' | 'RTU' | 'REJ' | 'DREQ' | 'DREP' | 'SIDR_REQ' | 'SIDR_REP' | 'ESTABLISH'

/** A transition, and the event that it raises. */
export interface CmStep {
  readonly nextState: CmState
  readonly event?: CmEventName
}

/** The effect of a received message: a transition, or for a duplicate only an answer. */
type CmReceipt = CmStep | { readonly answer: CmMessageName }

interface CmStateRules {
  readonly receive: Partial<Readonly<Record<CmMessageName, CmReceipt>>>
  readonly command: Partial<Readonly<Record<CmCommand, CmState>>>
  /**
   * The transition when the last retransmission was not answered, or when the timer of TIMEWAIT expires. `send`: the
   * peer gets a REJ (reason TIMEOUT).
   */
  readonly timeout?: CmStep & { readonly send?: 'REJ' }
  /**
   * When the consumer destroys the connection: `send` is the message to the peer, `reason` that of a REJ. If `timewait`
   * is set, the connection then enters TIMEWAIT.
   */
  readonly destroy?: {
    readonly send?: CmMessageName
    readonly reason?: keyof typeof rejReason
    readonly timewait?: true
  }
}

/** A REJ with reason STALE_CONN leads to TIMEWAIT instead (services/cm-engine/receive.ts). */
const rejectedToIdle = { nextState: 'IDLE', event: 'REJ_RECEIVED' } as const
const rejectedToTimewait = { nextState: 'TIMEWAIT', event: 'REJ_RECEIVED' } as const
const disconnected = { nextState: 'DREQ_RCVD', event: 'DREQ_RECEIVED' } as const
const established = { nextState: 'ESTABLISHED', event: 'RTU_RECEIVED' } as const
const replied = { nextState: 'REP_RCVD', event: 'REP_RECEIVED' } as const
const drepReceived = { nextState: 'TIMEWAIT', event: 'DREP_RECEIVED' } as const
const timedOut = (event: CmEventName) => ({ nextState: 'IDLE', event, send: 'REJ' }) as const
const reject = { send: 'REJ', reason: 'CONSUMER_DEFINED' } as const

export const cmStates: Readonly<Record<CmState, CmStateRules>> = {
  IDLE: { receive: {}, command: { REQ: 'REQ_SENT', SIDR_REQ: 'SIDR_REQ_SENT' } },

  // ---- the active side ----
  REQ_SENT: {
    receive: { MRA: { nextState: 'MRA_REQ_RCVD', event: 'MRA_RECEIVED' }, REP: replied, REJ: rejectedToIdle },
    command: { REJ: 'IDLE' },
    timeout: timedOut('REQ_ERROR'),
    destroy: { send: 'REJ', reason: 'TIMEOUT' },
  },
  MRA_REQ_RCVD: {
    receive: { REP: replied, REJ: rejectedToIdle },
    command: { REJ: 'IDLE' },
    timeout: timedOut('REQ_ERROR'),
    destroy: { send: 'REJ', reason: 'TIMEOUT' },
  },
  REP_RCVD: {
    receive: { REJ: rejectedToTimewait },
    command: { MRA: 'MRA_REP_SENT', RTU: 'ESTABLISHED', REJ: 'IDLE' },
    destroy: reject,
  },
  MRA_REP_SENT: {
    receive: { REP: { answer: 'MRA' }, REJ: rejectedToTimewait },
    command: { RTU: 'ESTABLISHED', REJ: 'IDLE' },
    destroy: reject,
  },

  // ---- the passive side ----
  REQ_RCVD: {
    receive: { REJ: rejectedToIdle },
    command: { MRA: 'MRA_REQ_SENT', REP: 'REP_SENT', REJ: 'IDLE' },
    destroy: reject,
  },
  MRA_REQ_SENT: {
    receive: { REQ: { answer: 'MRA' }, REJ: rejectedToIdle },
    command: { REP: 'REP_SENT', REJ: 'IDLE' },
    destroy: reject,
  },
  REP_SENT: {
    receive: {
      REQ: { answer: 'REP' },
      MRA: { nextState: 'MRA_REP_RCVD', event: 'MRA_RECEIVED' },
      RTU: established,
      DREQ: disconnected,
      REJ: rejectedToIdle,
    },
    command: { ESTABLISH: 'ESTABLISHED', REJ: 'TIMEWAIT' },
    timeout: timedOut('REP_ERROR'),
    destroy: { ...reject, timewait: true },
  },
  MRA_REP_RCVD: {
    receive: { RTU: established, DREQ: disconnected, REJ: rejectedToIdle },
    command: { ESTABLISH: 'ESTABLISHED', REJ: 'TIMEWAIT' },
    timeout: timedOut('REP_ERROR'),
    destroy: { ...reject, timewait: true },
  },

  // ---- both ----
  ESTABLISHED: {
    receive: { REP: { answer: 'RTU' }, DREQ: disconnected, REJ: rejectedToTimewait },
    command: { DREQ: 'DREQ_SENT' },
    // XRC targets are destroyed without DREQ and TIMEWAIT (services/cm-engine/engine.ts).
    destroy: { send: 'DREQ', timewait: true },
  },
  DREQ_SENT: {
    receive: { DREQ: disconnected, DREP: drepReceived, REJ: rejectedToTimewait },
    command: {},
    timeout: { nextState: 'TIMEWAIT', event: 'DREQ_ERROR' },
    destroy: { timewait: true },
  },
  DREQ_RCVD: {
    receive: { DREP: drepReceived },
    command: { DREP: 'TIMEWAIT' },
    destroy: { send: 'DREP', timewait: true },
  },
  TIMEWAIT: {
    receive: { REQ: { answer: 'REJ' }, DREQ: { answer: 'DREP' } },
    command: {},
    timeout: { nextState: 'IDLE', event: 'TIMEWAIT_EXIT' },
  },

  // ---- service id resolution, for datagrams ----
  SIDR_REQ_SENT: {
    receive: { SIDR_REP: { nextState: 'IDLE', event: 'SIDR_REP_RECEIVED' } },
    command: {},
    timeout: { nextState: 'IDLE', event: 'SIDR_REQ_ERROR' },
  },
  SIDR_REQ_RCVD: { receive: {}, command: { SIDR_REP: 'IDLE' }, destroy: { send: 'SIDR_REP' } },
}
