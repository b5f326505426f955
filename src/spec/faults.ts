/*
 * Injected faults: the settings of a fault rule, as `--fault` and `userdma fault set` take them, and what an adapter
 * can do. faults/rules.ts parses rules; transport/phy/faults/kinds.ts implements the kinds of faults of packets.
 */

import { isSrqClass } from './classes/ids.ts'
import { AsyncEventType, CmEventType, nameIn } from './enums.ts'
import type { ErrnoName } from './errno.ts'
import { CREATE, CREATE_FD, DESTROY, MODIFY, type ObjectClass, QUERY } from './schema/schema.ts'
import { sendOperations, WcOpcode, type WcStatus, WrOpcode } from './work.ts'

/** Kinds of faults that affect a share of the packets, in the order of the decisions for each packet. */
export const FaultKinds = {
  drop: { counter: 'dropped', example: 'drop=1%', help: 'share that is lost (1% or 0.01)' },
  corrupt: {
    counter: 'corrupted',
    example: 'corrupt=1%',
    help: 'share in which one to three bits are flipped',
  },
  dup: { counter: 'duplicated', example: 'dup=1%', help: 'share that arrives twice' },
  reorder: {
    counter: 'reordered',
    example: 'reorder=1%',
    help: 'share that is overtaken by up to eight later packets (dir=sent: and the rest of the burst)',
  },
  ecn: {
    counter: 'marked',
    example: 'ecn=10%',
    help: 'share with the ECN mark "congestion experienced", as from a congested switch',
  },
} as const

export type FaultKind = keyof typeof FaultKinds
export const faultKinds = Object.keys(FaultKinds) as readonly FaultKind[]

/** What a rule acts on, with the word for several of them. */
export const FaultTargets = {
  packet: 'packets',
  call: 'calls',
  post: 'posts',
  completion: 'completions',
  event: 'asynchronous events',
  notice: 'received events',
  page: 'pages',
} as const
export type FaultTarget = keyof typeof FaultTargets

/** The longest outage of a link that a rule or command begins, milliseconds. */
export const MAX_LINK_TIME = 600_000

/** Targets of rules for programs. */
const PROGRAM = ['call', 'post', 'completion', 'event', 'notice', 'page'] as const
const REQUESTS = ['post', 'completion'] as const
/** Targets of rules that let something happen to a device or process. */
const HAPPENINGS = ['call', 'completion', 'event'] as const

/** The signals that a rule may send to a process. */
export const ruleSignals = ['KILL', 'TERM', 'INT', 'HUP', 'ABRT'] as const
export type RuleSignal = (typeof ruleSignals)[number]

/** The most places by which a GID moves. */
export const MAX_GID_MOVE = 8

interface Setting {
  readonly example: string
  readonly help: string
  /** Absent: packets. */
  readonly targets?: readonly FaultTarget[]
}

/** All settings of a rule, in the order of its text: selectors, then effects. */
export const FaultSettings = {
  call: { example: 'call=mr.create', help: 'calls of a method (mr.*, *.create; several with +)', targets: ['call'] },
  completion: {
    example: 'completion=WRITE',
    help: 'completions of these requests: SEND, WRITE, READ … RECV, *; several with +',
    targets: ['completion'],
  },
  device: { example: 'device=rxe0', help: 'one device only', targets: ['packet', ...PROGRAM] },
  program: { example: 'program=rping', help: 'programs of this name (the command, as in ps) only', targets: PROGRAM },
  process: {
    example: 'process=2',
    help: 'the second process, in the order in which they make their first calls (from 1; several: 1+2)',
    targets: PROGRAM,
  },
  role: {
    example: 'role=5b1c07d2',
    help: 'processes of one command line, as `userdma walk` prints it (5b1c07d2.2: the second of them to make a call)',
    targets: PROGRAM,
  },
  phase: {
    example: 'phase=transfers',
    help: 'processes that have come so far: begins, has-a-queue-pair, connects, transfers, closes (several with +)',
    targets: PROGRAM,
  },
  pid: { example: 'pid=4711', help: 'one process only (several: 4711+4712)', targets: PROGRAM },
  class: {
    example: 'class=rc_qp',
    help: 'objects of this class only: of the call, or the queue (several with +)',
    targets: ['call', ...REQUESTS],
  },
  site: {
    example: 'site=1f0c33a9',
    help: 'one call site, as `userdma walk` prints it',
    targets: ['call', ...REQUESTS],
  },
  dir: { example: 'dir=received|sent|both', help: 'packets that the device receives (the default) or sends' },
  qp: {
    example: 'qp=0x12',
    help: 'packets to this queue pair; posts and completions of it (several: 0x12+0x13)',
    targets: ['packet', ...REQUESTS],
  },
  opcode: { example: 'opcode=RC_ACKNOWLEDGE', help: 'packets with this opcode (RC_READ_RESP_*, 0x11; several with +)' },
  cm: {
    example: 'cm=DREQ',
    help: 'messages of this name that make and end connections (REQ, REP, RTU …; several with +)',
  },
  ack: {
    example: 'ack=NAK',
    help: 'acknowledgements that say ACK, NAK (a packet is missing, a request is refused) or RNR (no receive is posted)',
  },
  notice: {
    example: 'notice=COMPLETION',
    help: 'events that the program receives: COMPLETION, PORT_ERR, DISCONNECTED …, *; several with +',
    targets: ['notice'],
  },
  request: {
    example: 'request=SEND',
    help: 'posts of these requests: SEND, WRITE_WITH_IMM … RECV (several with +)',
    targets: ['post'],
  },
  wr_id: {
    example: 'wr_id=7',
    help: 'posts and completions of requests with this wr_id (several: 7+0x10)',
    targets: REQUESTS,
  },
  length: {
    example: 'length=0',
    help: 'payload of the packet, or bytes of the posted request (no batch of ibv_wr_*): 0, 1..64, 4096.. (several with +)',
    targets: ['packet', 'post'],
  },
  inline: {
    example: 'inline=yes|no',
    help: 'posts whose data is inline, or is not (no batch of ibv_wr_*, no receive)',
    targets: ['post'],
  },
  rkey: { example: 'rkey=0x1234', help: 'packets that name this rkey: READs, WRITEs, atomics (several with +)' },
  imm: { example: 'imm=0x11', help: 'packets with this immediate data (several with +)' },
  dscp: {
    example: 'dscp=af31',
    help: 'DSCP of the IP header, or of the GRH of RoCE v1: a number, a name or a range as 24..31 (several with +)',
  },
  message: {
    example: 'message=2',
    help: 'packets of the second message of their flow: packets to a queue pair, from one sender; requests and answers apart (several with +)',
  },
  packet: {
    example: 'packet=3',
    help: 'the third packet of a flow, or with message= of the message; also when it is sent again (several with +)',
  },
  per: {
    example: 'per=qp',
    help: 'what nth, every and count count: all that a device sends or receives (device, the default), or each queue pair (qp), or flow (flow) for itself; of programs all devices together, or each (device), or each queue pair (qp)',
    targets: ['packet', ...REQUESTS],
  },
  nth: {
    example: 'nth=3',
    help: 'only the third match; with count= later ones too, at the steps of every=',
    targets: ['packet', ...PROGRAM],
  },
  every: { example: 'every=10', help: 'every tenth match', targets: ['packet', ...PROGRAM] },
  share: { example: 'share=1%', help: 'share of the matches', targets: PROGRAM },
  count: { example: 'count=5', help: 'at most five times', targets: ['packet', ...PROGRAM] },
  ...FaultKinds,
  errno: { example: 'errno=ENOMEM', help: 'the call fails with this error', targets: ['call'] },
  post: { example: 'post=ENOMEM', help: 'the post of a send or receive fails with this error', targets: ['post'] },
  status: {
    example: 'status=RETRY_EXC_ERR',
    help: 'the request completes with this status, and its queue pair goes to ERR',
    targets: ['completion'],
  },
  event: {
    example: 'event=PORT_ERR',
    help: 'the program gets this event: after the call (of rdma_cm: in place of its result), or when it opens the device',
    targets: ['call', 'event'],
  },
  page: {
    example: 'page=gone',
    help: 'an access of the device to a region with on-demand paging finds no page, as after munmap',
    targets: ['page'],
  },
  link: {
    example: 'link=3s',
    help: 'the link of the device is down for so long: at the call or completion, or when the program opens the device',
    targets: HAPPENINGS,
  },
  gid: {
    example: 'gid=1',
    help: "the device's address leaves, and returns at a place so much higher in the GID table, as if others had come first: on rxe an index, on mlx5 two (RoCE v1 and v2)",
    targets: HAPPENINGS,
  },
  cable: {
    example: 'cable=leaf1:spine1:3s',
    help: "the cables between two switches of --fabric are pulled, for so long or for good; cable=way: the first between switches on the way of the device's packets",
    targets: HAPPENINGS,
  },
  router: {
    example: 'router=spine1',
    help: 'packets that cross this router of simulated links; router=spine1:3s: the router is down for so long',
    targets: ['packet', ...HAPPENINGS],
  },
  manager: {
    example: 'manager=3s',
    help: 'the subnet manager of InfiniBand ports dies, and another one starts after so long',
    targets: HAPPENINGS,
  },
  gone: {
    example: 'gone=1s',
    help: 'the device is removed, and is there again after so long',
    targets: HAPPENINGS,
  },
  fatal: {
    example: 'fatal=qps',
    help: 'the device fails: DEVICE_FATAL, and all its queue pairs go to ERR; new ones can be made. fatal=silent: neither packets, completions nor events come any more; fatal=half: no completions and events of every second queue pair',
    targets: HAPPENINGS,
  },
  signal: { example: 'signal=KILL', help: `the process gets ${ruleSignals.join(', ')}`, targets: HAPPENINGS },
  stop: { example: 'stop=1s', help: 'the process is stopped for so long (SIGSTOP, SIGCONT)', targets: HAPPENINGS },
  again: {
    example: 'again=10ms',
    help: 'the program receives the event once more after so long, without cause',
    targets: ['notice'],
  },
  turn: {
    example: 'turn=20ms',
    help: 'the event comes after so long, to the next of the threads that wait for it',
    targets: ['notice'],
  },
  delay: {
    example: 'delay=5ms',
    help: 'delay of every packet, of the call, or of the event',
    targets: ['packet', 'call', 'event', 'notice'],
  },
  jitter: { example: 'jitter=1ms', help: 'random variation of the delay, plus or minus' },
  rate: { example: 'rate=10mbit', help: 'bits per second; packets beyond a queue of 1000 are lost' },
  seed: {
    example: 'seed=7',
    help: 'seed of the random sequence: the same seed and packets give the same faults',
    targets: ['packet', ...PROGRAM],
  },
} as const satisfies Readonly<Record<string, Setting>>

/** Targets of the rules that may have a setting. */
export const targetsOf = (name: keyof typeof FaultSettings): readonly FaultTarget[] => {
  const setting: Setting = FaultSettings[name]
  return setting.targets ?? ['packet']
}

type Counter = (typeof FaultKinds)[FaultKind]['counter']

/** Packets that matched a rule, that each kind affected, and that its delay or rate held. */
export type FaultRuleCounts = Record<'matched' | Counter | 'delayed', number>

/** A rule that acts, for messages. */
export interface ActingRule {
  /** From 1, as `userdma fault show` counts them. */
  readonly number: number
  readonly text: string
  /** Of a program's own rule: the same object for rules that were set together. */
  readonly scope?: object
}

/** Calls, posts, completions or contexts that matched a rule for programs, and how often the rule acted. */
export interface ProgramRuleCounts {
  matched: number
  injected: number
}

/** A fault rule, and its counts: of packets and faults, or for programs of matches and injected faults. */
export interface FaultStat extends Readonly<Partial<FaultRuleCounts & ProgramRuleCounts>> {
  readonly rule: string
  readonly matched: number
  /** The process that has set the rule for itself; absent: it is the daemon's. */
  readonly process?: number
}

/** Packets of a device by outcome. `overflowed`: dropped because there was no room to delay them. */
export type FaultCounters = Record<Counter | 'delayed' | 'overflowed', number>

const zeros = (): Record<Counter, number> =>
  Object.fromEntries(faultKinds.map(kind => [FaultKinds[kind].counter, 0])) as Record<Counter, number>

export const noFaultRuleCounts = (): FaultRuleCounts => ({ matched: 0, ...zeros(), delayed: 0 })
/** The sum of a rule's counts over ports or directions. */
export const sumFaultRuleCounts = (counts: readonly FaultRuleCounts[]): FaultRuleCounts => {
  const sum = noFaultRuleCounts()
  for (const ruleCounts of counts)
    for (const [name, count] of Object.entries(ruleCounts)) sum[name as keyof FaultRuleCounts] += count
  return sum
}

/** How often a rule has acted: on packets, each effect for itself. */
export const effectsIn = ({ matched: _, ...effects }: FaultRuleCounts | ProgramRuleCounts): number =>
  Object.values(effects).reduce((sum, count) => sum + count, 0)

export const noFaultCounts = (): FaultCounters => ({ ...zeros(), delayed: 0, overflowed: 0 })

/** What happened to a packet at a port. Those after 'wrong icrc' are injected faults; links lose and mark too. */
export const packetOutcomes = [
  'passed',
  'wrong icrc',
  'dropped',
  'corrupted',
  'duplicated',
  'reordered',
  'delayed',
  'marked',
] as const
export type PacketOutcome = (typeof packetOutcomes)[number]
/** Calls, posts or completions of one kind from one call site. */
export interface SurveySite {
  readonly target: FaultTarget
  /** `class.method`, or the name of the request or completion. */
  readonly name: string
  /** Class of the object or queue. */
  readonly class: string
  /** As in rules; empty: unknown. */
  readonly site: string
  /** Its name. */
  readonly device: string
  /** Command of the program that came first. */
  readonly program: string
  /** Of the first. */
  readonly stack: readonly string[]
  count: number
  /** Which process of the survey, in the order of their first calls, from 1. */
  readonly process: number
  /** What the process is in each run, as in rules: its command line (`roleOf` in host/process-status.ts). */
  readonly role: string
  /** What the process had done then; a site has an entry for each phase. */
  readonly phase: ProgramPhase
  /** The number of the first here, counted by process, device and site over all phases, from 1. */
  readonly first: number
  /** Of a received event: the process had other threads. */
  readonly isThreaded?: true
  /** How many of the calls only ask: they were refused, or made queue pairs that were destroyed without a modify. */
  asked?: number
}

/** How far a process has come: it has a device, a queue pair, a connection, has requests, and closes again. */
export const programPhases = ['begins', 'has a queue pair', 'connects', 'transfers', 'closes'] as const
export type ProgramPhase = (typeof programPhases)[number]
/** A phase in rules. */
export const phaseWord = (phase: ProgramPhase): string => phase.replaceAll(' ', '-')

/** A queue pair with whose failing completions a program has gone on. */
export interface Relapse {
  readonly pid: number
  readonly program: string
  readonly text: string
  /** Of a post after the failure; empty: unknown. */
  readonly stack: readonly string[]
}

/** What a survey has seen beside the call sites. Times are milliseconds since its begin. */
export interface SurveyFacts {
  /** When a rule first acted. */
  readonly injectedAt?: number
  /** When the first successful completion came after the last failed one. */
  readonly recoveredAt?: number
  /** Failures that programs were told, at most some, each with its process. */
  readonly told: readonly string[]
  /** The longest time for which a queue pair repeats a request, milliseconds. */
  readonly retries: number
  /** Empty without the checker. */
  readonly relapses: readonly Relapse[]
  /** A queue pair that could not be stopped was destroyed next: nothing was lost. */
  readonly isGivenUp?: true
}

/**
 * The first process of a survey into which a fault was injected, and how many objects its program, not a library for
 * itself, has destroyed since.
 */
export interface FailedProgram {
  readonly pid: number
  readonly destroyed: number
}

// ---- calls ----

const CREATE_ERRORS = ['ENOMEM', 'EINVAL', 'EIO', 'EPERM', 'EOPNOTSUPP'] as const
const OTHER_ERRORS = ['EINVAL', 'EIO', 'ENOMEM', 'EOPNOTSUPP'] as const
/** By call number of block COMMON. */
const commonErrors: Readonly<Record<number, readonly ErrnoName[]>> = {
  [CREATE]: CREATE_ERRORS,
  [CREATE_FD]: [...CREATE_ERRORS, 'EMFILE', 'ENFILE'],
  [QUERY]: OTHER_ERRORS,
  [MODIFY]: [...OTHER_ERRORS, 'EBUSY', 'EPERM', 'ETIMEDOUT'],
  // The kernel frees what a destroy names: it cannot lack memory.
  [DESTROY]: ['EBUSY', 'EIO'],
}
/** What Linux's calls on this class or method return in addition. */
const additionalErrors: Readonly<Record<string, readonly ErrnoName[]>> = {
  'mr.create': ['EFAULT', 'EACCES'],
  'ah.create': ['ENETUNREACH', 'ETIMEDOUT'],
  'rc_qp.modify': ['ENETUNREACH'],
  'uc_qp.modify': ['ENETUNREACH'],
  'device.open': ['EMFILE', 'ENFILE', 'EPERM'],
  'cm_id.create': ['ENODEV'],
  'cm_id.bind': ['EADDRINUSE', 'EADDRNOTAVAIL', 'EACCES', 'ENODEV'],
  'cm_id.resolveAddress': ['EADDRINUSE', 'EADDRNOTAVAIL', 'ENODEV', 'ENETUNREACH', 'EHOSTUNREACH'],
  'cm_id.resolveRoute': ['ENODEV', 'EHOSTUNREACH', 'ETIMEDOUT'],
  'cm_id.connect': ['EADDRNOTAVAIL', 'ENODEV', 'EISCONN'],
  'cm_id.listen': ['EADDRINUSE', 'EADDRNOTAVAIL'],
  'cm_id.accept': ['ENODEV'],
}

/** The errors that a rule may inject into a call; no adapter and no kernel gives others. */
export const errnosOf = (cls: ObjectClass, method: string): readonly ErrnoName[] => {
  if (cls.methods[method]?.role === 'waits') return ['EAGAIN', 'EIO']
  const call = cls.methods[method]?.call
  return [
    ...((call !== undefined && commonErrors[call]) || OTHER_ERRORS),
    ...(additionalErrors[`${cls.name}.${method}`] ?? []),
  ]
}

/** The errors of a post: ibv_post_send(3), and what providers return. */
export const postErrnos: readonly ErrnoName[] = ['ENOMEM', 'EINVAL', 'EIO']

// ---- requests and completions ----

const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values

const withoutPrefix = (name: string): string => name.replace(/^RDMA_/, '')

/** The name of an ibv_wr_opcode in rules; `RECV` for a receive (undefined). */
export const requestNameOf = (opcode: number | undefined): string =>
  opcode === undefined ? 'RECV' : withoutPrefix(nameIn(WrOpcode.values, opcode))
export const requestNames: readonly string[] = [...Object.keys(WrOpcode.values).map(withoutPrefix), 'RECV']

/** The name of an ibv_wc_opcode in rules. */
export const completionNameOf = (opcode: number): string => withoutPrefix(nameIn(WcOpcode.values, opcode))
const completionOpcodes: readonly number[] = [
  ...new Set(Object.values(sendOperations).map(({ completion }) => completion)),
  RECV,
  RECV_RDMA_WITH_IMM,
]
export const completionNames: readonly string[] = completionOpcodes.map(completionNameOf)

type StatusName = keyof typeof WcStatus.values

const LOCAL_ERRORS = ['LOC_LEN_ERR', 'LOC_QP_OP_ERR', 'LOC_PROT_ERR'] as const
const ANY_ERRORS = ['WR_FLUSH_ERR', 'FATAL_ERR', 'GENERAL_ERR'] as const
/** What the peer's answers, and their absence, lead to: reliable services only. */
const REMOTE_ERRORS = [
  'BAD_RESP_ERR',
  'REM_INV_REQ_ERR',
  'REM_ACCESS_ERR',
  'REM_OP_ERR',
  'RETRY_EXC_ERR',
  'RNR_RETRY_EXC_ERR',
] as const
/** EFA's reliable datagrams, as libefa translates the statuses of completions. */
const SRD_REMOTE_ERRORS = [
  'BAD_RESP_ERR',
  'REM_INV_REQ_ERR',
  'REM_ACCESS_ERR',
  'REM_OP_ERR',
  'REM_INV_RD_REQ_ERR',
  'REM_ABORT_ERR',
  'RESP_TIMEOUT_ERR',
  'RNR_RETRY_EXC_ERR',
] as const
const LOCAL_OPERATIONS: readonly string[] = ['BIND_MW', 'LOCAL_INV']

/** By class of queue pair: how reliable it is, and the requests that it has beside receives. */
const services: Readonly<Record<string, 'reliable' | 'unreliable' | 'datagram' | 'srd'>> = {
  rc_qp: 'reliable',
  xrc_ini_qp: 'reliable',
  xrc_tgt_qp: 'reliable',
  dci_qp: 'reliable',
  dct_qp: 'reliable',
  uc_qp: 'unreliable',
  ud_qp: 'datagram',
  gsi_qp: 'datagram',
  driver_qp: 'srd',
}
export const queuePairClasses: readonly string[] = Object.keys(services)

/**
 * The statuses of failed completions that `completion` (a name of `completionNames`) can have on a class of queue pair.
 */
export const statusesOf = (cls: string, completion: string): readonly StatusName[] => {
  const service = services[cls]
  if (service === undefined) return []
  if (service === 'srd') {
    // The opcode of a READ's completion is SEND.
    if (!['SEND', 'WRITE', 'RECV', 'RECV_RDMA_WITH_IMM'].includes(completion)) return []
    const remote = completion.startsWith('RECV') ? [] : SRD_REMOTE_ERRORS
    return [...LOCAL_ERRORS, ...remote, 'WR_FLUSH_ERR']
  }
  if (completion.startsWith('RECV')) {
    if (cls === 'xrc_ini_qp' || cls === 'dci_qp' || (service === 'datagram' && completion !== 'RECV')) return []
    // A datagram that does not fit is dropped silently (IBA 9.6.1.4.3).
    if (service === 'datagram') return ['LOC_QP_OP_ERR', 'LOC_PROT_ERR', ...ANY_ERRORS]
    const access = completion === 'RECV' ? [] : (['LOC_ACCESS_ERR'] as const)
    const invalid = service === 'reliable' ? (['REM_INV_REQ_ERR'] as const) : []
    return [...LOCAL_ERRORS, ...access, ...invalid, ...ANY_ERRORS]
  }
  if (cls === 'xrc_tgt_qp' || cls === 'dct_qp') return []
  if (LOCAL_OPERATIONS.includes(completion))
    return service === 'datagram' ? [] : ['LOC_QP_OP_ERR', 'MW_BIND_ERR', ...ANY_ERRORS]
  if (completion === 'MEMCPY') return service === 'reliable' ? [...LOCAL_ERRORS, ...ANY_ERRORS] : []
  if (service === 'reliable') return [...LOCAL_ERRORS, ...REMOTE_ERRORS, ...ANY_ERRORS]
  const isKnown = completion === 'SEND' || (service === 'unreliable' && completion === 'WRITE')
  return isKnown ? [...LOCAL_ERRORS, ...ANY_ERRORS] : []
}

// ---- asynchronous events ----

/** Of a port or the device. Others, as LID_CHANGE, belong to InfiniBand links; the devices' links are Ethernet. */
export const deviceEvents = ['PORT_ERR', 'PORT_ACTIVE', 'GID_CHANGE', 'DEVICE_FATAL', 'DEVICE_SPEED_CHANGE'] as const

/** The events of objects of a class that a rule may raise. */
export const objectEventsOf = (cls: string): readonly string[] => {
  if (cls in services) return ['QP_FATAL', 'QP_REQ_ERR', 'QP_ACCESS_ERR']
  if (cls === 'cq') return ['CQ_ERR']
  return isSrqClass(cls) ? ['SRQ_ERR', 'SRQ_LIMIT_REACHED'] : []
}

/**
 * The events of rdma_cm with which a call on an identifier may fail, by method. They come in place of what the call
 * leads to; DISCONNECTED comes after it.
 */
const connectionEvents: Readonly<Record<string, readonly (keyof typeof CmEventType.values)[]>> = {
  'cm_id.resolveAddress': ['ADDR_ERROR'],
  'cm_id.resolveRoute': ['ROUTE_ERROR'],
  'cm_id.connect': ['REJECTED', 'UNREACHABLE', 'CONNECT_ERROR'],
  'cm_id.accept': ['REJECTED', 'UNREACHABLE', 'DISCONNECTED'],
}

/** The events of rdma_cm that a rule may raise after a call. `method`: `class.method`. */
export const connectionEventsOf = (method: string): readonly string[] => connectionEvents[method] ?? []
export const connectionEventNames: readonly string[] = [...new Set(Object.values(connectionEvents).flat())]

// ---- events that programs receive ----

/** The name of an event on a completion channel. */
export const COMPLETION_NOTICE = 'COMPLETION'
const cmEventNames = Object.keys(CmEventType.values)
/** Events of rdma_cm come once, so a rule cannot repeat them. */
export const isRepeatable = (notice: string): boolean => !cmEventNames.includes(notice)
export const noticeNames: readonly string[] = [
  ...new Set([COMPLETION_NOTICE, ...Object.keys(AsyncEventType.values), ...cmEventNames]),
]
