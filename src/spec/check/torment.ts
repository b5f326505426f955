/*
 * `--torment SEED`: the device does at random what the specification allows and hardware rarely does
 * (docs/decisions/torment.md). drivers/soft/torment/ implements the kinds.
 */

/** `help`: what the device does; `rule`: why a correct program tolerates it. */
export const TormentKinds = {
  bytes: {
    help: 'the bytes of a message reach memory late and in any order, the last bytes often first',
    rule: 'IBA 9.5, ibv_query_qp_data_in_order(3): only a completion, or a later SEND, immediate or atomic of the queue pair, tells that the bytes have arrived',
  },
  completion: {
    help: 'completions come late and in bursts; completions of different work queues come in another order',
    rule: 'IBA 10.8.3.3: completions are ordered within one work queue only, and may come at any time',
  },
  event: {
    help: 'a completion event comes late, perhaps after its completion was polled',
    rule: 'ibv_get_cq_event(3): an event may find the CQ empty',
  },
  spurious: {
    help: 'an armed CQ raises a completion event without a completion',
    rule: 'ibv_get_cq_event(3): an extra event may have no completion in the CQ',
  },
  request: {
    help: 'posted requests start late: requests and READ responses of other queue pairs come first',
    rule: 'IBA 10.8.3.3: requests of different queue pairs have no order',
  },
  ack: {
    help: 'acknowledgements come late, and one acknowledges several messages',
    rule: 'IBA 9.7.5.1.2: a responder may coalesce acknowledgements',
  },
  rnr: {
    help: 'the RNR NAK of a receiver without a receive request demands a longer wait, up to 655.36 ms',
    rule: 'IBA 9.7.5.2.8: min_rnr_timer is the minimum of the wait',
  },
  packet: {
    help: 'packets of RC and XRC are duplicated or overtaken, and then retransmitted; later datagrams, multicast too, overtake earlier datagrams',
    rule: 'IBA 9.7.1, 9.9.2.4: a reliable connection repairs loss, order and duplicates; 9.8.3: datagrams have no order, and messages of SRD have none',
  },
  limit: {
    help: 'a CQ has exactly the requested entries, and overruns with one more completion',
    rule: 'ibv_create_cq(3): a CQ has at least the requested entries',
  },
  queue: {
    help: 'queues have exactly the requested requests, elements and inline bytes; the slot of an unsignaled send is occupied until a later send completes',
    rule: 'ibv_create_qp(3): a queue pair has at least the requested limits; ibv_post_send(3): a full queue refuses a request with ENOMEM',
  },
  adapter: {
    help: "some of the device's limits on requests, elements, inline bytes, CQ entries and READs in flight are the smallest of the adapters with RC in `userdma help reference/adapters`",
    rule: 'ibv_query_device(3): a program asks the device for its limits',
  },
  fields: {
    help: 'a completion in error has arbitrary values in opcode, byte_len, imm_data, src_qp, wc_flags, pkey_index, slid and sl',
    rule: 'ibv_poll_cq(3): of a completion in error only wr_id, status, qp_num and vendor_err are valid',
  },
  numbers: {
    help: 'queue pairs, keys and handles of different devices have the same numbers',
    rule: 'IBA 10.2.5, 11.2.4: numbers and keys belong to their device; adapters of one model count alike',
  },
  skew: {
    help: 'all completions of some devices come long after those of the others',
    rule: 'IBA 10.8.3.3: completions of different queues have no order, those of different devices still less',
  },
  reuse: {
    help: 'the number of a destroyed queue pair and the key of a deregistered region are given out again at once',
    rule: 'IBA 10.2.5, 11.2.4: a number or key belongs to its object until that is destroyed, and no longer',
  },
  keys: {
    help: 'lkey and rkey of a region are two keys: each is refused in place of the other',
    rule: 'IBA 10.6.3.3: the L_Key is for the own work requests, the R_Key for those of peers; that both are equal, as on many adapters, is not promised',
  },
  relaxed: {
    help: 'of two WRITEs to the same bytes of a region with IBV_ACCESS_RELAXED_ORDERING the first may reach memory last',
    rule: 'ibv_reg_mr(3): the flag lets the system reorder accesses to the region; only completions, and atomics and READs of the queue pair, keep their order',
  },
  late: {
    help: 'WRITEs and READs of lent memory arrive only when its owner has lent it again, takes it back, frees or sends it',
    rule: 'IBA 9.7.5: a request may be in flight until its completion, also when the program that has posted it has given it up and destroyed its queue pair',
  },
} as const

export type TormentKind = keyof typeof TormentKinds
export const tormentKinds = Object.keys(TormentKinds) as readonly TormentKind[]

/** Kinds that have one name in lists of kinds. */
const groups: Readonly<Record<string, readonly TormentKind[]>> = {
  delays: ['completion', 'event', 'request', 'ack', 'rnr', 'skew'],
}

/** A random decision, for traces; again with `held` once what it has held goes on. */
export interface TormentDecision {
  /** Counts the decisions of all devices, from 1. */
  readonly number: number
  readonly kind: TormentKind
  /**
   * KIND/DEVICE/PROCESS/OBJECT/THING: the same decision in each run of the same programs. PROCESS: its ancestors' and
   * own command; OBJECT: class and n-th creation by that process; `-`: the decision has none.
   */
  readonly id: string
  /** The decision as a sentence without its full stop. */
  readonly text: string
  readonly held?: TormentHeld
}

/** What a decision has held back, after it. */
export interface TormentHeld {
  /** How long it was held, until the time of this record. */
  readonly microseconds: number
  /** The completions of other queues that came meanwhile, the last ones, as DEVICE/PROCESS/OBJECT/THING. */
  readonly passed: readonly string[]
  /** Number of all these completions. */
  readonly passedCount: number
  /** A call needed what was held, so it went on before its time. */
  readonly isEarly: boolean
  /** Of one that is held until an event (`TormentHold`): whether the event came. */
  readonly hasCome?: boolean
}

/** A decision of `only`, as ID, ID~MICROSECONDS or ID~EVENT. */
export interface TormentHold {
  /** With * at its end: all that begin so; without a wait or event those that the seed makes. */
  readonly id: string
  /** Each of its waits, microseconds; undefined: random, or until an event. */
  readonly wait: number | undefined
  /**
   * What it is about is held until this has come, at most MAX_HOLD. DEVICE/PROCESS/OBJECT/THING of a completion: the
   * program has polled it. The identity of a decision: what that one is about has gone on. For `request` and
   * `completion`, also DEVICE/PROCESS/OBJECT and a word of `Awaited`; then at most half the ACK timeout.
   */
  readonly until: string | undefined
}

/** Until when a request or completion may be held: what a queue pair does. */
export const Awaited = {
  /** The sends that were posted before are done. */
  POSTS: 'posts-done',
  /** The same; if there are none, the next one is. */
  NEXT: 'next-done',
  /** Its send or receive queue has had as many completions as that of what is held. */
  SENDS: 'as-many-sends',
  RECEIVES: 'as-many-receives',
} as const
type AwaitedWord = (typeof Awaited)[keyof typeof Awaited]

/** What DEVICE/PROCESS/OBJECT is to do; undefined: `until` is another event. */
export const awaitedIn = (until: string): { readonly object: string; readonly word: AwaitedWord } | undefined => {
  const at = until.lastIndexOf('/')
  const word = Object.values(Awaited).find(one => one === until.slice(at + 1))
  return word && { object: until.slice(0, at), word }
}

/** The longest wait for an event, and of ID~MICROSECONDS, microseconds. */
export const MAX_HOLD = 200_000

export const MAX_SEED = 2 ** 32 - 1

export const SEED_RANGE = `an integer from 0 to ${MAX_SEED}`

export const isSeed = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_SEED

/** The argument of `--torment`: SEED[:COUNT][:kinds=KIND,…][:only=ID+…]. */
export interface TormentSetting {
  readonly seed: number
  /** COUNT, or Infinity: after this many decisions the devices behave as without `--torment`. */
  readonly maxDecisions: number
  /** Only these kinds act, at each opportunity; undefined: the seed decides. */
  readonly kinds?: readonly TormentKind[] | undefined
  /** Only these decisions are made, by identity, and certainly; undefined: all of the seed. */
  readonly only?: readonly string[] | undefined
}

/** A setting with only a seed. */
export const tormentOf = (seed: number): TormentSetting => ({ seed, maxDecisions: Number.POSITIVE_INFINITY })

export const tormentText = ({ seed, maxDecisions, kinds, only }: TormentSetting): string =>
  [
    seed,
    ...(maxDecisions === Number.POSITIVE_INFINITY ? [] : [maxDecisions]),
    ...(kinds === undefined ? [] : [`kinds=${kinds.join(',')}`]),
    ...(only === undefined ? [] : [`only=${only.join('+')}`]),
  ].join(':')

export const tormentKindNames: readonly string[] = [...Object.keys(groups), ...tormentKinds]

/** The kinds of these names, each once. Throws an Error. */
export const kindsOf = (names: readonly string[]): readonly TormentKind[] => [
  ...new Set(
    names.flatMap(word => {
      const kinds = tormentKinds.filter(kind => kind === word)
      const found = kinds.length > 0 ? kinds : Object.hasOwn(groups, word) ? groups[word]! : []
      if (found.length > 0) return found
      throw new Error(`kind of torment "${word}" is not one of ${tormentKindNames.join(', ')}`)
    }),
  ),
]

const areNames = (parts: readonly string[]): boolean =>
  parts.length === 4 && parts.every(part => /^[\w.-]+$/.test(part))

/** Whether a value is KIND/DEVICE/PROCESS/OBJECT/THING. */
const isDecisionId = (value: string): boolean => {
  const [kind, ...rest] = value.split('/')
  const isKind = tormentKinds.some(known => known === kind)
  if (!value.endsWith('*')) return isKind && areNames(rest)
  const begun = rest.join('/').slice(0, -1).split('/')
  return isKind && begun.length <= 4 && begun.every(part => /^[\w.-]*$/.test(part))
}

/** The decision of this text; undefined: it is none. */
export const readHold = (text: unknown): TormentHold | undefined => {
  if (typeof text !== 'string') return undefined
  const [id = '', end, ...rest] = text.split('~')
  if (!isDecisionId(id) || rest.length > 0) return undefined
  if (end === undefined) return { id, wait: undefined, until: undefined }
  if (/^\d{1,6}$/.test(end)) return Number(end) <= MAX_HOLD ? { id, wait: Number(end), until: undefined } : undefined
  return isDecisionId(end) || areNames(end.split('/')) ? { id, wait: undefined, until: end } : undefined
}

/** The kind of the decision with this identity. */
export const decisionKind = (id: string): string => id.slice(0, id.indexOf('/'))

/** Identities separated by +. Throws an Error. */
const readIds = (text: string): readonly string[] =>
  text.split('+').map(id => {
    if (readHold(id) !== undefined) return id
    throw new Error(
      `"${id}" is not the identity of a decision: write KIND/DEVICE/PROCESS/OBJECT/THING, as a trace does, or its beginning and *, or that with ~MICROSECONDS (at most ${MAX_HOLD}) or ~DEVICE/PROCESS/OBJECT/THING of a completion, until which it is held`,
    )
  })

/** Throws an Error, which says what is wrong. */
export const readTorment = (text: string): TormentSetting => {
  const [, seed, count, kinds, only] =
    /^(\d{1,10})(?::(\d{1,15}))?(?::kinds=([^:]*))?(?::only=([^:]*))?$/.exec(text) ?? []
  if (seed === undefined || !isSeed(Number(seed)))
    throw new Error(
      `a seed is ${SEED_RANGE}; SEED:COUNT makes only the first COUNT decisions of the seed, SEED:only=ID+ID only these`,
    )
  return {
    seed: Number(seed),
    maxDecisions: count === undefined ? Number.POSITIVE_INFINITY : Number(count),
    ...(kinds !== undefined && { kinds: kindsOf(kinds.split(',')) }),
    ...(only !== undefined && { only: readIds(only) }),
  }
}
