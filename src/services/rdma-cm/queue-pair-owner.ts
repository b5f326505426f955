/*
 * Queue pairs that connection management modifies (R17; the attribute `qp` of cm_id.connect and cm_id.accept): to INIT
 * for the request, to RTR and RTS with the agreed parameters, to ERR when the connection fails or ends. The program may
 * only modify such a queue pair to ERR.
 */
import { addHook } from '../../core/devices/registry.ts'
import { callerWithoutMemory } from '../../core/dispatch/caller.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import type { ConnectionParameters, QpAttributes } from '../../core/driver-contract.ts'
import type { CallContext, Context, CoreObject, Device } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { RcQp } from '../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../spec/classes/qp/uc_qp.ts'
import { CmEventType, QpState, QpType } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import type { In } from '../../spec/schema/schema.ts'
import { rejReason } from '../../spec/wire/mad.ts'
import type { Identifier, IdOwner } from './identifier.ts'
import type { EventDetails } from './parameters.ts'
import { qpAttributesFor } from './qp-attributes.ts'
import type { RdmaCm } from './rdma-cm.ts'

const { INIT, RTR, RTS, ERR } = QpState.values
const { ADDR_RESOLVED, ROUTE_RESOLVED, CONNECT_RESPONSE, CONNECT_ERROR, ESTABLISHED } = CmEventType.values
const { UNREACHABLE, ADDR_CHANGE } = CmEventType.values
/** 0.64 ms. Linux leaves the timer at 0, which is 655 ms. */
const MIN_RNR_TIMER = 12

type ConnectedClass = typeof RcQp | typeof UcQp
const classes: Readonly<Record<number, ConnectedClass>> = {
  [QpType.values.RC]: RcQp,
  [QpType.values.UC]: UcQp,
}

const connectionManagement = callerWithoutMemory('connection management')

/** Queue pairs that belong to a connection. */
const ownedQps = new WeakSet<CoreObject>()
const hookedDevices = new WeakSet<Device>()

/** Installs a hook that refuses modifications of owned queue pairs by programs. */
const refuseModify = (device: Device): void => {
  if (hookedDevices.has(device)) return
  hookedDevices.add(device)
  for (const cls of Object.values(classes))
    addHook(device, {
      class: cls.name,
      method: 'modify',
      pre({ caller }, object, args) {
        if (caller === connectionManagement || !ownedQps.has(object)) return
        // The class refuses other attributes with ERR.
        if (args.state === ERR) return
        throw callError.EBUSY`${the.method(`${cls.name}.modify`)}: the queue pair belongs to a connection; only a move to ERR is allowed`
      },
    })
}

/** The object with this handle. Throws CallError ENOENT, or EBUSY if it belongs to a connection. */
export const unownedObject = ({ context }: CallContext, handle: number, method: string): CoreObject => {
  const object = findHandle(context.handles, handle)
  if (object === undefined)
    throw callError.ENOENT`${the.method(method)}: ${the.attribute('qp')}: there is no object ${handle}`
  if (ownedQps.has(object))
    throw callError.EBUSY`${the.method(method)}: ${the.attribute('qp')}: ${handle} belongs to a connection already`
  return object
}

const qpnOf = (qp: CoreObject): number => (qp.state as { readonly qpn: number }).qpn

/** Attributes of the queue pair that the program chooses; absent: the agreed ones, and MIN_RNR_TIMER. */
type ChosenAttributes = Pick<In<typeof RcQp.methods.modify>, 'timeout' | 'retryCnt' | 'rnrRetry' | 'minRnrTimer'>

/** Takes the place of an identifier's owner until the connection ends. */
class QueuePairOwner implements IdOwner {
  readonly #cm: RdmaCm
  readonly #id: Identifier
  readonly #previousOwner: IdOwner
  readonly #qp: CoreObject
  readonly #cls: ConnectedClass
  /** The program's limits of READs and atomics, which limit the agreed ones. */
  readonly #limits: Pick<ConnectionParameters, 'responderResources' | 'initiatorDepth'>
  readonly #chosen: ChosenAttributes
  #hasLeftInit = false

  constructor(
    cm: RdmaCm,
    id: Identifier,
    qp: CoreObject,
    parameters: ConnectionParameters,
    chosen: ChosenAttributes,
    method: string,
  ) {
    const cls = classes[id.qpType]
    if (cls === undefined || qp.class.id !== cls.id)
      throw callError.EINVAL`${the.method(method)}: ${the.attribute('qp')}: a ${qp.class.name} cannot be connected by this identifier`
    this.#cm = cm
    this.#id = id
    this.#previousOwner = id.owner
    this.#qp = qp
    this.#cls = cls
    // A program in this process may use its record again before the peer answers.
    const { responderResources, initiatorDepth } = parameters
    this.#limits = { responderResources, initiatorDepth }
    this.#chosen = { ...chosen }
    if (qp.context !== undefined) refuseModify(qp.context.device)
    ownedQps.add(qp)
    id.owner = this
  }

  /**
   * Call when the connection failed or ended. Moves the queue pair to ERR, and the program may modify it again. A queue
   * pair in INIT stays there, and the identifier can connect it again.
   */
  end(): void {
    if (this.#hasLeftInit) this.#moveToError()
    ownedQps.delete(this.#qp)
    if (this.#id.owner === this) this.#id.owner = this.#previousOwner
  }

  /**
   * Modifies the queue pair to each of `states` in turn, unless the protocol does that. Throws CallError: EINVAL if the
   * program has modified the queue pair, ENOENT if it is destroyed.
   */
  modifyThrough(...states: readonly number[]): void {
    for (const state of states) {
      const attributes = qpAttributesFor(this.#id, state)
      if (attributes !== undefined) {
        // The flags depend on the peer's parameters, which the active side does not know at INIT.
        const rights = state === RTR ? { accessFlags: qpAttributesFor(this.#id, INIT)?.accessFlags } : {}
        const chosen = this.#id.qpType === QpType.values.RC ? this.#rcAttributes(state, attributes) : {}
        this.#modify(Object.assign({ state }, attributes, rights, chosen))
      }
      if (state === RTR) this.#hasLeftInit = true
    }
  }

  /**
   * Attributes of RC only: the agreed limits of READ and atomic requests, at most the program's, the RNR timer, and
   * what the program has chosen.
   */
  #rcAttributes(state: number, agreed: QpAttributes): object {
    const { responderResources, initiatorDepth } = this.#limits
    const { minRnrTimer = MIN_RNR_TIMER, timeout, retryCnt, rnrRetry } = this.#chosen
    if (state === RTR)
      return { maxDestRdAtomic: Math.min(agreed.maxDestRdAtomic ?? 0, responderResources), minRnrTimer }
    if (state !== RTS) return {}
    return {
      maxRdAtomic: Math.min(agreed.maxRdAtomic ?? 0, initiatorDepth),
      timeout: timeout ?? agreed.timeout,
      retryCnt: retryCnt ?? agreed.retryCnt,
      rnrRetry: rnrRetry ?? agreed.rnrRetry,
    }
  }

  /** The queue pair's context; undefined if the program has destroyed the queue pair. */
  get #context(): Context | undefined {
    const { context, handle } = this.#qp
    return context !== undefined && findHandle(context.handles, handle) === this.#qp ? context : undefined
  }

  #modify(args: object): void {
    const context = this.#context
    if (context === undefined) throw callError.ENOENT`cm_id: the queue pair of the connection is destroyed`
    invokeNow(context, this.#cls, 'modify', this.#qp.handle, args, connectionManagement)
  }

  #moveToError(): void {
    if (this.#context === undefined) return
    try {
      this.#modify({ state: ERR })
    } catch (error) {
      // The context is closed, or the device removed.
      if (!(error instanceof CallError)) throw error
    }
  }

  /** Goes on when the route is resolved, after the call has returned. */
  whenResolved: (() => void) | undefined

  event(type: number, details: EventDetails): void {
    if (type === ROUTE_RESOLVED) this.#onRoute()
    if (type === ADDR_RESOLVED || type === ROUTE_RESOLVED) return
    if (type === CONNECT_RESPONSE) {
      this.#onResponse(details)
      return
    }
    // UNREACHABLE in state CONNECT means that a neighbour's MAC changed (`neighbourChanged`): the connection continues.
    const hasConnection =
      type === ESTABLISHED || type === ADDR_CHANGE || (type === UNREACHABLE && this.#id.state === 'CONNECT')
    if (!hasConnection) this.end()
    this.#previousOwner.event(type, details)
  }

  createRequest(): undefined {
    return undefined
  }

  destroyed(): void {
    this.end()
  }

  #onRoute(): void {
    const next = this.whenResolved
    this.whenResolved = undefined
    try {
      next?.()
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      this.end()
      this.#previousOwner.event(CONNECT_ERROR, { status: -error.errno })
    }
  }

  /** The peer has accepted: connects the queue pair and confirms, or rejects the connection. */
  #onResponse(details: EventDetails): void {
    try {
      this.modifyThrough(RTR, RTS)
      this.#cm.accept(this.#id, undefined)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      this.#cm.reject(this.#id, new Uint8Array(0), rejReason.CONSUMER_DEFINED)
      this.end()
      this.#previousOwner.event(CONNECT_ERROR, { status: -error.errno })
      return
    }
    this.#previousOwner.event(ESTABLISHED, details)
  }
}

/**
 * Connects a queue pair. First resolves `destination`, if given, and the route if it is not resolved. The event
 * ESTABLISHED, or the event of a failure, follows.
 */
export const connectQueuePair = (
  cm: RdmaCm,
  id: Identifier,
  qp: CoreObject,
  parameters: ConnectionParameters,
  destination: SocketAddress | undefined,
  chosen: ChosenAttributes = {},
): void => {
  const owner = new QueuePairOwner(cm, id, qp, parameters, chosen, 'cm_id.connect')
  try {
    if (destination !== undefined) cm.resolveAddress(id, destination, undefined)
    if (id.state === 'ADDR_RESOLVED') cm.resolveRoute(id)
    // The resolution failed with ADDR_ERROR.
    if (destination !== undefined && id.state === 'ADDR_BOUND') return
    const isResolving = id.state === 'ROUTE_QUERY'
    // A program in this process may use its record again before the route is resolved.
    const own = isResolving ? { ...parameters, privateData: parameters.privateData.slice() } : parameters
    const connect = (): void => {
      owner.modifyThrough(INIT)
      cm.connect(id, { ...own, qpNum: qpnOf(qp) })
    }
    if (isResolving) owner.whenResolved = connect
    else connect()
  } catch (error) {
    owner.end()
    throw error
  }
}

/** Moves the queue pair to RTS and accepts a request. */
export const acceptWithQueuePair = (
  cm: RdmaCm,
  id: Identifier,
  qp: CoreObject,
  parameters: ConnectionParameters,
  chosen: ChosenAttributes = {},
): void => {
  const owner = new QueuePairOwner(cm, id, qp, parameters, chosen, 'cm_id.accept')
  try {
    owner.modifyThrough(INIT, RTR, RTS)
    cm.accept(id, { ...parameters, qpNum: qpnOf(qp) })
  } catch (error) {
    owner.end()
    throw error
  }
}
