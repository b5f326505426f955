/*
 * The state machine of queue pairs as a table: the transitions of MODIFY_QP with their required and optional attributes
 * (InfiniBand Architecture Specification, volume 1, clause 10.3.1 and table 91). MODIFY_QP may also move any state to
 * RESET or ERR, without attributes (Linux's ib_modify_qp_is_ok refuses RESET to ERR). Attribute names are those of the
 * classes in spec/classes; an address attribute has the name of its role (spec/links.ts).
 */
import { QpState } from './enums.ts'
import { addressRoles, optionalOfAddresses } from './links.ts'
import { because, coded, type Reason, the } from './reason.ts'

export type QpStateName = keyof typeof QpState.values

export interface Transition {
  readonly required: readonly string[]
  readonly optional: readonly string[]
}

type Transitions = Partial<Record<QpStateName, Partial<Record<QpStateName, Transition>>>>

/** Optional attributes of the transitions from RTR on, for connected types. */
const laterOptions = {
  RC: ['accessFlags', 'minRnrTimer', 'alternatePath', 'pathMigState'],
  UC: ['accessFlags', 'alternatePath', 'pathMigState'],
} as const
const path = ['address', 'pathMtu', 'destQpn', 'rqPsn'] as const
const initial = ['pkeyIndex', 'port', 'accessFlags'] as const
const retries = ['timeout', 'retryCnt', 'rnrRetry'] as const
/** Optional attributes of INIT to RTR, for connected types. */
const rtrOptions = ['alternatePath', 'accessFlags', 'pkeyIndex'] as const

const needs = (...required: string[]): Transition => ({ required, optional: [] })
const takes = (...optional: string[]): Transition => ({ required: [], optional })

/**
 * The transitions of a datagram type. `initAttributes`: the required attributes of RESET to INIT; `rtsOptions`: more
 * optional attributes of RTR to RTS.
 */
const datagram = (initAttributes: readonly string[], ...rtsOptions: string[]) => ({
  RESET: { INIT: needs(...initAttributes) },
  INIT: { INIT: takes(...initAttributes), RTR: takes('pkeyIndex', 'qkey') },
  RTR: { RTS: { required: ['sqPsn'], optional: ['curState', 'qkey', ...rtsOptions] } },
  RTS: { RTS: takes('curState', 'qkey'), SQD: takes('enSqdAsyncNotify') },
  SQD: { RTS: takes('curState', 'qkey'), SQD: takes('pkeyIndex', 'qkey') },
  SQE: { RTS: takes('curState', 'qkey') },
})

/** By type, current state and next state, without the transitions to RESET and ERR. */
export const qpTransitions = {
  RC: {
    RESET: { INIT: needs(...initial) },
    INIT: {
      INIT: takes(...initial),
      RTR: { required: [...path, 'maxDestRdAtomic', 'minRnrTimer'], optional: rtrOptions },
    },
    RTR: { RTS: { required: [...retries, 'sqPsn', 'maxRdAtomic'], optional: ['curState', ...laterOptions.RC] } },
    RTS: { RTS: takes('curState', ...laterOptions.RC), SQD: takes('enSqdAsyncNotify') },
    SQD: {
      RTS: takes('curState', ...laterOptions.RC),
      SQD: takes('port', 'address', ...retries, 'maxRdAtomic', 'maxDestRdAtomic', 'pkeyIndex', ...laterOptions.RC),
    },
    SQE: { RTS: needs() },
  },
  UC: {
    RESET: { INIT: needs(...initial) },
    INIT: { INIT: takes(...initial), RTR: { required: path, optional: rtrOptions } },
    RTR: { RTS: { required: ['sqPsn'], optional: ['curState', ...laterOptions.UC] } },
    RTS: { RTS: takes('curState', ...laterOptions.UC), SQD: takes('enSqdAsyncNotify') },
    SQD: { RTS: takes('curState', ...laterOptions.UC), SQD: takes('address', 'pkeyIndex', ...laterOptions.UC) },
    SQE: { RTS: takes('curState', 'accessFlags') },
  },
  UD: datagram(['pkeyIndex', 'port', 'qkey']),
  /** Queue pairs 0 and 1 belong to a port from their creation: INIT takes no `port`. */
  GSI: datagram(['pkeyIndex', 'qkey']),
  SMI: datagram(['pkeyIndex', 'qkey']),
  /** EFA's reliable datagrams (srd_qp_state_table of Linux's driver). */
  DRIVER: datagram(['pkeyIndex', 'port', 'qkey'], 'rnrRetry'),
  /** An initiator and a target of mlx5's dynamically connected transport, as in Linux's driver. */
  DCI: {
    RESET: { INIT: needs('pkeyIndex', 'port') },
    INIT: { INIT: takes('pkeyIndex', 'port'), RTR: { required: ['pathMtu'], optional: ['pkeyIndex', 'address'] } },
    RTR: { RTS: { required: [...retries, 'maxRdAtomic', 'sqPsn'], optional: ['minRnrTimer'] } },
    RTS: { RTS: takes('minRnrTimer') },
  },
  DCT: {
    RESET: { INIT: needs('pkeyIndex', 'port', 'accessFlags') },
    INIT: { RTR: needs('pathMtu', 'minRnrTimer', 'address') },
  },
  RAW_PACKET: {
    RESET: { INIT: needs('port') },
    INIT: { INIT: needs(), RTR: needs() },
    RTR: { RTS: needs() },
    RTS: { RTS: needs(), SQD: takes('enSqdAsyncNotify') },
    SQD: { RTS: needs(), SQD: needs() },
    SQE: { RTS: needs() },
  },
  /** Path, partition and retries are attributes of the end-to-end context, not of the QP. */
  RD: {
    RESET: { INIT: needs('qkey', 'accessFlags') },
    INIT: { INIT: takes('qkey', 'accessFlags'), RTR: { required: ['minRnrTimer'], optional: ['qkey', 'accessFlags'] } },
    RTR: { RTS: takes('curState', 'qkey', 'accessFlags', 'minRnrTimer') },
    RTS: { RTS: takes('curState', 'qkey', 'accessFlags', 'minRnrTimer'), SQD: takes('enSqdAsyncNotify') },
    SQD: {
      RTS: takes('curState', 'qkey', 'accessFlags', 'minRnrTimer'),
      SQD: takes('qkey', 'accessFlags', 'minRnrTimer'),
    },
    SQE: { RTS: takes('curState', 'qkey', 'accessFlags', 'minRnrTimer') },
  },
  /**
   * The initiator has a requester only, the target a responder only. `minRnrTimer` belongs to a responder, so the
   * initiator has `laterOptions.UC`.
   */
  XRC_INI: {
    RESET: { INIT: needs(...initial) },
    INIT: { INIT: takes(...initial), RTR: { required: path, optional: rtrOptions } },
    RTR: { RTS: { required: [...retries, 'sqPsn', 'maxRdAtomic'], optional: ['curState', ...laterOptions.UC] } },
    RTS: { RTS: takes('curState', ...laterOptions.UC), SQD: takes('enSqdAsyncNotify') },
    SQD: {
      RTS: takes('curState', ...laterOptions.UC),
      SQD: takes('port', 'address', ...retries, 'maxRdAtomic', 'pkeyIndex', ...laterOptions.UC),
    },
    SQE: { RTS: needs() },
  },
  XRC_TGT: {
    RESET: { INIT: needs(...initial) },
    INIT: {
      INIT: takes(...initial),
      RTR: { required: [...path, 'maxDestRdAtomic', 'minRnrTimer'], optional: rtrOptions },
    },
    RTR: { RTS: { required: ['timeout', 'sqPsn'], optional: ['curState', ...laterOptions.RC] } },
    RTS: { RTS: takes('curState', ...laterOptions.RC), SQD: takes('enSqdAsyncNotify') },
    SQD: {
      RTS: takes('curState', ...laterOptions.RC),
      SQD: takes('port', 'address', 'timeout', 'maxDestRdAtomic', 'pkeyIndex', ...laterOptions.RC),
    },
    SQE: { RTS: needs() },
  },
} as const satisfies Record<string, Transitions>

export type QpTypeName = keyof typeof qpTransitions

const names = Object.keys(QpState.values) as QpStateName[]
const byNumber = new Map<number, QpStateName>(names.map(name => [QpState.values[name], name]))
const nameOf = (state: number): QpStateName | undefined => byNumber.get(state)

/** The allowed values of `curState`. */
const CURRENT_STATES: readonly string[] = ['RTR', 'RTS', 'SQD', 'SQE']

const noAttributes: Transition = { required: [], optional: [] }

/** The name of an attribute in the table. An address attribute of a link has the name of its role. */
const tableName = (name: string): string => addressRoles.get(name) ?? name

/** As `tableName`; `address` for an optional attribute of addresses, which is passed together with the address. */
const stepAttribute = (name: string): string => (optionalOfAddresses.has(name) ? 'address' : tableName(name))

/** The attributes of a transition; undefined for an illegal one. */
export const transitionOf = (type: QpTypeName, from: QpStateName, to: QpStateName): Transition | undefined =>
  to === 'RESET' || to === 'ERR' ? noAttributes : (qpTransitions[type] as Transitions)[from]?.[to]

/** Bits of addresses and of their optional attributes. Required attributes have lower bits. */
const ADDRESS = 1 << 29
const ADDRESS_EXTRA = 1 << 30
const REQUIRED_BITS = ADDRESS - 1

/** A transition as bits, for `isTransition`. */
interface Row {
  /** Bits by accepted attribute, without `curState`. Only required attributes have one of REQUIRED_BITS. */
  readonly bits: ReadonlyMap<string, number>
  readonly needed: number
}

const compileRow = ({ required, optional }: Transition): Row => {
  const bits = new Map([['state', 0], ...optional.map(name => [name, 0] as const)])
  required.forEach((name, i) => {
    bits.set(name, 1 << i)
  })
  for (const [name, role] of addressRoles) {
    const bit = bits.get(role)
    if (bit !== undefined) bits.set(name, role === 'address' ? bit | ADDRESS : bit)
  }
  if (bits.has('address')) for (const name of optionalOfAddresses) bits.set(name, ADDRESS_EXTRA)
  // Only `checkTransition`, the slow path, compares `curState` with the actual state.
  bits.delete('curState')
  return { bits, needed: 2 ** required.length - 1 }
}

/** By type and by 8 × current state + next state. null: an illegal transition; undefined: not compiled yet. */
const compiled = new Map<QpTypeName, (Row | null | undefined)[]>()

const rowOf = (type: QpTypeName, from: number, to: number): Row | null => {
  if ((from | to) >>> 3 !== 0) return null
  let rows = compiled.get(type)
  if (rows === undefined) {
    rows = new Array(64).fill(undefined)
    compiled.set(type, rows)
  }
  let row = rows[8 * from + to]
  if (row === undefined) {
    const [before, after] = [nameOf(from), nameOf(to)]
    const transition = before && after && transitionOf(type, before, after)
    row = transition ? compileRow(transition) : null
    rows[8 * from + to] = row
  }
  return row
}

/**
 * The fast path of MODIFY_QP: true if the transition is legal with the attributes in `args`. If false,
 * `checkTransition` decides and gives the reason.
 */
export const isTransition = (
  type: QpTypeName,
  from: number,
  to: number,
  args: Readonly<Record<string, unknown>>,
): boolean => {
  const row = rowOf(type, from, to)
  if (row === null) return false
  let present = 0
  for (const name in args) {
    if (args[name] === undefined) continue
    const bit = row.bits.get(name)
    if (bit === undefined) return false
    present |= bit
  }
  const isExtraWithoutAddress = (present & (ADDRESS | ADDRESS_EXTRA)) === ADDRESS_EXTRA
  return (present & REQUIRED_BITS) === row.needed && !isExtraWithoutAddress
}

/**
 * Checks a transition of MODIFY_QP. States are numbers of `QpState`; in a call without `state`, `to` equals `from`.
 * `attributes`: names of the passed attributes. `curState`: the value of that attribute. Returns undefined if the
 * transition is legal, otherwise the message of the error (EINVAL).
 */
export const checkTransition = (
  type: QpTypeName,
  from: number,
  to: number,
  attributes: readonly string[],
  curState?: number,
): Reason | undefined => {
  const before = nameOf(from)
  const after = nameOf(to)
  if (before === undefined || after === undefined)
    return because`QP state ${before === undefined ? from : to} does not exist; states are 0 (RESET) to 6 (ERR)`
  const requested = transitionOf(type, before, after)
  const passed = new Set(attributes.filter(name => !optionalOfAddresses.has(name)).map(tableName))
  const withoutAddress = passed.has('address') ? undefined : attributes.find(name => optionalOfAddresses.has(name))
  if (withoutAddress !== undefined)
    return because`${the.member(withoutAddress)} is part of the destination: pass it together with ${the.member('address')}`
  passed.delete('state')
  if (passed.has('curState') && curState !== undefined) {
    const claimed = nameOf(curState)
    if (claimed === undefined || !CURRENT_STATES.includes(claimed))
      return because`${the.member('curState')} is ${claimed ?? curState}; it may be ${CURRENT_STATES.join(', ')}`
    if (claimed !== before)
      return because`${the.member('curState')} is ${claimed}, but the ${type} queue pair is in ${before}`
  }
  if (requested === undefined) {
    const allowed = names.filter(name => transitionOf(type, before, name) !== undefined)
    return coded(
      'no-transition',
    )`${type} queue pairs cannot go from ${before} to ${after}; from ${before} they can go to ${allowed.join(', ')}`
  }
  const missing = requested.required.filter(name => !passed.has(name))
  if (missing.length > 0)
    return coded(
      'attributes-missing',
    )`${before} to ${after} of ${type} queue pairs needs ${the.attributes(...missing)} as well`
  const legal = [...requested.required, ...requested.optional]
  const extra = [...passed].filter(name => !legal.includes(name))
  if (extra.length > 0) {
    const list = legal.length === 0 ? 'no attributes' : the.attributes(...legal)
    return coded(
      'attributes-not-taken',
    )`${before} to ${after} of ${type} queue pairs does not take ${the.attributes(...extra)}; it takes ${list}`
  }
  return undefined
}

/** A transition of a new queue pair on the way from RESET to its initial state. */
export interface Step {
  /** The next state, a number of `QpState`. */
  readonly state: number
  readonly attributes: readonly string[]
}

/** The states after RESET in which a queue pair can be created, in the order of the transitions. */
const STATES_AFTER_RESET: readonly QpStateName[] = ['INIT', 'RTR', 'RTS', 'SQD']

/** Cache of `planTransitions`: programs create many queue pairs with the same attributes. */
const plans = new Map<string, readonly Step[] | Reason>()
const MAX_PLANS = 256

/**
 * The transitions that move a new queue pair to state `to` (a number of `QpState`) with these attributes. Each
 * attribute belongs to the step that requires it, otherwise to the first step that accepts it. Returns the steps, or
 * the message of the error (EINVAL).
 */
export const planTransitions = (
  type: QpTypeName,
  to: number,
  attributes: readonly string[],
): readonly Step[] | Reason => {
  const key = `${type} ${to} ${attributes.join()}`
  let plan = plans.get(key)
  if (plan === undefined) {
    plan = makePlan(type, to, attributes)
    if (plans.size === MAX_PLANS) plans.clear()
    plans.set(key, plan)
  }
  return plan
}

const makePlan = (type: QpTypeName, to: number, attributes: readonly string[]): Step[] | Reason => {
  const target = nameOf(to)
  if (target === 'RESET' && attributes.length === 0) return []
  const last = target === undefined ? -1 : STATES_AFTER_RESET.indexOf(target)
  if (last < 0) {
    const withAttributes = target === 'RESET' ? ' with attributes' : ''
    return because`a new queue pair cannot be in ${target ?? to}${withAttributes}; it can be in ${STATES_AFTER_RESET.join(', ')}`
  }
  const steps = STATES_AFTER_RESET.slice(0, last + 1)
  const rows = steps.map((after, i) => transitionOf(type, i === 0 ? 'RESET' : steps[i - 1]!, after) ?? noAttributes)
  const remaining = new Set(attributes)
  const plan: Step[] = []
  for (const [i, { required, optional }] of rows.entries()) {
    const before = i === 0 ? 'RESET' : steps[i - 1]!
    const after = steps[i]!
    const isNeededLater = (name: string): boolean => rows.slice(i + 1).some(row => row.required.includes(name))
    const taken = [...remaining].filter(name => {
      const key = stepAttribute(name)
      return required.includes(key) || (optional.includes(key) && !isNeededLater(key))
    })
    for (const name of taken) remaining.delete(name)
    const why = checkTransition(type, QpState.values[before], QpState.values[after], taken)
    if (why !== undefined) return why
    plan.push({ state: QpState.values[after], attributes: taken })
  }
  if (remaining.size > 0)
    return because`no transition of a ${type} queue pair on the way to ${target} takes ${the.attributes(...remaining)}`
  return plan
}
