/*
 * The kinds of failures of a walk, and its points: from what a run without failures has shown, the fault rules that
 * each let one thing go wrong. What leads to the same state is tried once: a call site of a process in one phase
 * (faults/survey.ts), and of links and processes before a connection one site per phase.
 */
import { methodErrnos } from '../../faults/program-rules.ts'
import { MAX_SITES } from '../../faults/survey.ts'
import type { ErrnoName } from '../../spec/errno.ts'
import {
  isRepeatable,
  type ProgramPhase,
  phaseWord,
  queuePairClasses,
  type SurveySite,
  statusesOf,
} from '../../spec/faults.ts'
import { roleOf } from '../../spec/methods.ts'
import { askedAt } from './asks.ts'
import { isOfSameSite, sumOf, type WalkSite } from './site.ts'
import type { WalkKind } from './walk-kinds.ts'

/** How many packets of a role a host has received. */
export interface RoleCount {
  readonly host: string
  readonly role: PacketRole
  readonly count: number
}

/** What an outage lasts with timers that are `factor` of their length, milliseconds. */
type Lasts = (factor: number) => number

/** One run of the walk. */
export interface WalkPoint {
  readonly kind: WalkKind
  readonly host: string
  /** Absent: of a packet, or an action of a scenario. */
  readonly site?: WalkSite
  /** How far the process has come; of packets, what they belong to. */
  readonly phase: ProgramPhase
  /** What it happens to, if that has no line of the program: a role of packets, an event. */
  readonly what: string
  /** For reports: `mr.create fails with ENOMEM`. */
  readonly text: string
  /** The fault rule, with timers that are `factor` of their length; '' for an action. */
  readonly rule: (factor: number) => string
  /** How long what happens lasts: so much later a run hangs. */
  readonly lasts: Lasts
  /** The transport or the kernel makes up for it, or the program is not told: then it must succeed. */
  readonly isHidden: boolean
  /** The process into which it happens ends by it. */
  readonly kills: boolean
  /** Of `net walk`: programs of this host that fail are started again. */
  readonly restarts?: string
}

export interface WalkPlan {
  readonly points: readonly WalkPoint[]
  /** What is not tried, by kind: why, and how many. */
  readonly leftOut: readonly { readonly kind: WalkKind; readonly why: string; readonly count: number }[]
  /** Call sites to which only some of the runs without failures have come. */
  readonly varying: number
  /** There are more call sites than a survey notes. */
  readonly isCut: boolean
}

/** The errors in the order in which they are preferred: most programs must expect the first. */
const PREFERRED_ERRNOS: readonly ErrnoName[] = ['ENOMEM', 'EIO', 'EINVAL']

/** Calls that programs may expect to succeed, or that wait, do not fail. */
const isNeverFailed = (name: string): boolean => roleOf(name) === 'destroys' || roleOf(name) === 'waits'

/** libmlx5 asks a device that it opens for capabilities, and goes on without them. */
const OPENS = / verbs_open_device$/

/** The status of a failed request: what a lost peer leads to; for a receive, that its queue pair failed. */
const PREFERRED_STATUSES = ['RETRY_EXC_ERR', 'WR_FLUSH_ERR'] as const

/** Packets by role, with the selectors of a rule for received ones. */
const packetRoles = {
  REQ: 'cm=REQ',
  REP: 'cm=REP',
  RTU: 'cm=RTU',
  REJ: 'cm=REJ',
  MRA: 'cm=MRA',
  DREQ: 'cm=DREQ',
  DREP: 'cm=DREP',
  SIDR_REQ: 'cm=SIDR_REQ',
  SIDR_REP: 'cm=SIDR_REP',
  'FIRST packet': 'opcode=*_SEND_FIRST+*_WRITE_FIRST',
  'MIDDLE packet': 'opcode=*_SEND_MIDDLE+*_WRITE_MIDDLE',
  'LAST packet': 'opcode=*_SEND_LAST*+*_WRITE_LAST*',
  'ONLY packet': 'opcode=RC_SEND_ONLY*+RC_WRITE_ONLY*+UC_*_ONLY*+XRC_SEND_ONLY*+XRC_WRITE_ONLY*+SRD_SEND*+SRD_WRITE*',
  'READ or atomic': 'opcode=*_READ_REQUEST+*_COMPARE_SWAP+*_FETCH_ADD+SRD_READ',
  response: 'opcode=*_READ_RESP_*+*_ATOMIC_ACK+SRD_READ_DATA',
  acknowledgement: 'ack=ACK',
  NAK: 'ack=NAK',
  'RNR NAK': 'ack=RNR_NAK',
  datagram: 'opcode=UD_SEND_ONLY*',
} as const
export type PacketRole = keyof typeof packetRoles
export const packetRoleNames = Object.keys(packetRoles) as readonly PacketRole[]

/** Rules that never act, whose matches count packets by role. */
export const countingRules: readonly string[] = packetRoleNames.map(
  role => `${packetRoles[role]},drop=1,nth=1000000000`,
)

/** The phase of packets of a role. */
const phaseOfRole = (role: PacketRole): ProgramPhase =>
  role === 'DREQ' || role === 'DREP' ? 'closes' : packetRoles[role].startsWith('cm=') ? 'connects' : 'transfers'

/** Acknowledgements may be joined, so only the first is the same in each run. */
const VARYING: readonly PacketRole[] = ['acknowledgement', 'NAK', 'RNR NAK']

/** Messages of which all repetitions are lost too, and for how long they are repeated, milliseconds. */
const LOST_FOR_GOOD: Readonly<Partial<Record<PacketRole, number>>> = { REQ: 70_000, DREQ: 70_000 }

const LATE = 50
/** Milliseconds of outages, if the retries of queue pairs are not known. */
const SHORT_OUTAGE = 50
const LONG_OUTAGE = 1000
const LONGEST_OUTAGE = 30_000
const GONE = 500
/** The device does not come back. */
const GONE_FOR_EVER = 600_000
const MANAGER_GONE = 1000
const EVENT_LATE = 200
const EVENT_AGAIN = 20
const EVENT_TURN = 20
/** A thread may be so fast that an event cannot be taken back. */
const EVENT_TURNS = 5

const none = (): number => 0

/** A device with an InfiniBand port. */
export interface WalkPort {
  readonly host: string
  readonly device: string
  /** The switch to which it is cabled; '': the only one. */
  readonly switch: string
  /** The daemon has its subnet manager. */
  readonly isManaged: boolean
  /** Without any one link between switches there is another way. */
  readonly hasOtherWays: boolean
}

/** A router, or the links between two ends of which one is a router. */
interface WalkOutage {
  /** Of a rule, without its time: `router=spine1`. */
  readonly rule: string
  /** `the router spine1`. */
  readonly name: string
  /** Without it all hosts reach each other. */
  readonly hasOtherWays: boolean
}

/** What may go down of a routed net. */
export interface WalkOutages {
  readonly routers: readonly WalkOutage[]
  readonly paths: readonly WalkOutage[]
}

interface PlanOptions {
  /** Absent: all ports are of Ethernet. */
  readonly ports?: readonly WalkPort[]
  readonly outages?: WalkOutages | undefined
  readonly kinds: readonly WalkKind[]
  /** Milliseconds for which a process is stopped. */
  readonly stopped: number
  /** Killed processes can be started again: hosts of a scenario. */
  readonly hasRestarts: boolean
  /** Longest time for which a queue pair repeats requests, milliseconds; 0: unknown. */
  readonly retries: number
  /** As in `WalkPlan`. */
  readonly varying: number
}

/** Selects the process and the device, if there are several. */
type SelectPlace = (site: WalkSite) => string

const railOf = ({ host, device }: WalkSite): string => `${host} ${device}`

const hasQueue = ({ class: cls }: WalkSite): boolean => queuePairClasses.includes(cls)

/** How often a process comes to a site before a phase depends on times, so the first time is counted in the phase. */
const inPhase = ({ first, phase }: SurveySite): string => (first === 1 ? '' : `,phase=${phaseWord(phase)}`)

/** The selectors of the first time that a process comes to a site in a phase. */
const selectorsOf = (site: SurveySite, place: string): string | undefined => {
  const { target, name, class: cls, site: number } = site
  if (number === '') return undefined
  const what = target === 'call' ? `call=${name}` : target === 'completion' ? `completion=${name}` : undefined
  return what && `${what},class=${cls},site=${number}${place}${inPhase(site)},nth=1`
}

/** `asked`: how many calls of the site were made to ask; they come first. */
const failingPoint = (site: WalkSite, place: string, asked: number): Pick<WalkPoint, 'text' | 'rule'> | undefined => {
  const { target, name, class: cls, site: number } = site
  if (number === '') return undefined
  const at = `class=${cls},site=${number}${place}`
  const fixed = (rule: string, text: string) => ({ rule: () => rule, text })
  switch (target) {
    case 'call': {
      const errnos = isNeverFailed(name) ? [] : methodErrnos(name)
      const errno = PREFERRED_ERRNOS.find(preferred => errnos.includes(preferred))
      return errno && fixed(`call=${name},${at},nth=${asked + 1},errno=${errno}`, `${name} fails with ${errno}`)
    }
    case 'post': {
      const request = name === '' ? '' : `,request=${name}`
      const what =
        name === 'RECV' ? 'the post of a receive' : name === '' ? 'the post of a batch' : `the post of ${name}`
      return fixed(`${at}${request},nth=1,post=ENOMEM`, `${what} fails with ENOMEM`)
    }
    case 'completion': {
      const statuses: readonly string[] = statusesOf(cls, name)
      const status = PREFERRED_STATUSES.find(preferred => statuses.includes(preferred))
      return status && fixed(`completion=${name},${at},nth=1,status=${status}`, `${name} completes with ${status}`)
    }
    default:
      return undefined
  }
}

const time = (milliseconds: number): string =>
  milliseconds >= 1000 ? `${Number((milliseconds / 1000).toFixed(1))} s` : `${milliseconds} ms`

const FAILING: Readonly<Partial<Record<WalkKind, SurveySite['target']>>> = {
  calls: 'call',
  posts: 'post',
  completions: 'completion',
}

/** What happens at a step of a process. */
type StepEffect = Partial<WalkPoint> & {
  readonly effect: (factor: number) => string
  readonly what: string
  readonly isRestarted?: boolean
}

/** Phases in which all call sites of a process are one state for its link and its peer. */
const UNCONNECTED: readonly ProgramPhase[] = ['begins', 'has a queue pair']

class Planner {
  readonly #points: WalkPoint[] = []
  readonly #leftOut = new Map<string, { readonly kind: WalkKind; readonly why: string; count: number }>()
  readonly #sites: readonly WalkSite[]
  readonly #place: SelectPlace
  /** Hosts and devices with queue pairs, if a host has several. */
  readonly #rails: ReadonlySet<string>
  readonly #options: PlanOptions
  /** States in which the subnet manager has died. */
  readonly #withoutManager = new Set<string>()
  /** Steps at which a router and a path go down: each step has the next ones. */
  #routedSteps = 0

  constructor(sites: readonly WalkSite[], options: PlanOptions) {
    this.#sites = sites
    this.#options = options
    const several = new Set(
      sites
        .filter(({ host, role }) => sites.some(other => other.host === host && other.role !== role))
        .map(({ host }) => host),
    )
    const ofQueues = sites.filter(hasQueue)
    this.#rails = new Set(
      ofQueues
        .filter(({ host, device }) => ofQueues.some(other => other.host === host && other.device !== device))
        .map(railOf),
    )
    this.#place = site => {
      const process = several.has(site.host) ? `,role=${site.role}` : ''
      return this.#rails.has(railOf(site)) ? `${process},device=${site.device}` : process
    }
  }

  #leave(kind: WalkKind, why: string, count = 1): void {
    const known = this.#leftOut.get(`${kind} ${why}`) ?? { kind, why, count: 0 }
    known.count += count
    this.#leftOut.set(`${kind} ${why}`, known)
  }

  #add(point: Pick<WalkPoint, 'kind' | 'host' | 'text' | 'rule'> & Partial<WalkPoint>): void {
    const { site } = point
    const { phase = 'transfers', name = '' } = site ?? {}
    const text = site !== undefined && this.#rails.has(railOf(site)) ? `${point.text} on ${site.device}` : point.text
    this.#points.push({ phase, what: name, lasts: none, isHidden: false, kills: false, ...point, text })
  }

  #failing(kind: WalkKind): void {
    const seen = new Set<string>()
    for (const site of this.#sites.filter(({ target }) => target === FAILING[kind])) {
      const { host, role, name, device, class: cls, site: number } = site
      const key = [host, role, device, name, cls, number].join(' ')
      // Another phase of the same site.
      if (seen.has(key)) continue
      seen.add(key)
      const asked = kind === 'calls' ? askedAt(this.#sites, site) : 0
      const all = sumOf(this.#sites.filter(one => isOfSameSite(one, site) && one.name === site.name))
      const isAsked =
        (asked > 0 && all <= asked) || (name === 'devx.command' && site.stack.some(frame => OPENS.test(frame)))
      const found = failingPoint(site, this.#place(site), asked)
      if (found === undefined) continue
      if (isAsked) this.#leave(kind, 'calls by which libraries ask what there is')
      else this.#add({ kind, host, site, ...found })
    }
  }

  #packets(counts: readonly RoleCount[]): void {
    const hasCm = counts.some(({ role, count }) => count > 0 && packetRoles[role].startsWith('cm='))
    for (const { host, role, count } of counts) {
      const given = LOST_FOR_GOOD[role]
      if (given !== undefined && count > 0)
        this.#add({
          kind: 'packets',
          host,
          phase: phaseOfRole(role),
          what: role,
          text: `all ${role}s${host === '' ? '' : ` to ${host}`} are lost`,
          rule: () => `${packetRoles[role]},drop=1`,
          lasts: factor => given * factor,
        })
      // Messages of the connection manager are datagrams too.
      if (count === 0 || (role === 'datagram' && hasCm)) continue
      const numbers = count > 1 && !VARYING.includes(role) ? [1, count] : [1]
      if (count > numbers.length) this.#leave('packets', 'further packets of the same role', count - numbers.length)
      for (const nth of numbers)
        for (const [effect, text] of [
          ['drop=1', 'is lost'],
          ['dup=1', 'comes twice'],
          [`delay=${LATE}`, `comes ${LATE} ms late`],
        ] as const) {
          const which = numbers.length === 1 ? '' : nth === 1 ? 'first ' : 'last '
          const text2 = `the ${which}${role}${host === '' ? '' : ` to ${host}`} ${text}`
          this.#add({
            kind: 'packets',
            host,
            phase: phaseOfRole(role),
            what: role,
            text: text2,
            rule: () => `${packetRoles[role]},nth=${nth},${effect}`,
            lasts: none,
            isHidden: true,
          })
        }
    }
  }

  /** The steps of the processes. `isJoined`: of phases before a connection only the first. */
  #steps(kind: WalkKind, isJoined: boolean): readonly { site: WalkSite; selectors: string }[] {
    const seen = new Set<string>()
    return this.#sites.flatMap(site => {
      // A program that waits has come to the same state by its last call.
      if ((site.target !== 'call' && site.target !== 'completion') || roleOf(site.name) === 'waits') return []
      const selectors = selectorsOf(site, this.#place(site))
      if (selectors === undefined) return []
      const { host, phase } = site
      const rail = this.#rails.has(railOf(site)) ? site.device : ''
      const isOne = isJoined && UNCONNECTED.includes(phase)
      const key = [host, site.role, rail, phase, ...(isOne ? [] : [site.target, site.name, site.site])].join(' ')
      if (seen.has(key)) {
        this.#leave(kind, 'call sites in the same state as another')
        return []
      }
      seen.add(key)
      return [{ site, selectors }]
    })
  }

  #atSteps(
    kind: WalkKind,
    isJoined: boolean,
    effects: readonly StepEffect[] | ((site: WalkSite) => readonly StepEffect[]),
  ): void {
    for (const { site, selectors } of this.#steps(kind, isJoined))
      for (const { effect, what, isRestarted, ...others } of typeof effects === 'function' ? effects(site) : effects) {
        const at = site.target === 'call' ? site.name : `a completion of ${site.name}`
        this.#add({
          kind,
          host: site.host,
          site,
          text: `${what} at ${at}`,
          rule: factor => `${selectors},${effect(factor)}`,
          ...(isRestarted && { restarts: site.host }),
          ...others,
          // A program may refuse to begin on a port that is down.
          ...(UNCONNECTED.includes(site.phase) && { isHidden: false }),
        })
      }
  }

  #links(): void {
    const { retries } = this.#options
    const short: Lasts = factor =>
      Math.round(Math.max(1, retries > 0 ? Math.min(SHORT_OUTAGE, (retries * factor) / 4) : SHORT_OUTAGE * factor))
    const long: Lasts = factor =>
      Math.round(Math.min(LONGEST_OUTAGE, retries > 0 ? retries * factor * 1.5 + 200 : LONG_OUTAGE))
    this.#atSteps('links', true, site => [
      { effect: () => 'gid=1', what: this.#portsOf(site).length > 0 ? 'the LID changes' : 'the GID moves' },
      {
        effect: factor => `link=${short(factor)}ms`,
        what: 'the link goes down for less than retries last',
        lasts: short,
        isHidden: true,
      },
      {
        effect: factor => `link=${long(factor)}ms`,
        what: 'the link goes down for longer than retries last',
        lasts: long,
      },
      ...this.#ofRouters(long),
      ...this.#ofSwitches(site, short),
      ...this.#ofManager(site),
    ])
  }

  /** The InfiniBand ports of a step; those of all devices of the host, if it is a step of none. */
  #portsOf({ host, device }: WalkSite): readonly WalkPort[] {
    const own = (this.#options.ports ?? []).filter(port => port.host === host)
    const ofDevice = own.filter(port => port.device === device)
    return ofDevice.length > 0 ||
      this.#sites.some(site => site.host === host && site.device === device && hasQueue(site))
      ? ofDevice
      : own
  }

  /** Of the paths one, and of the routers one. */
  #ofRouters(lasts: Lasts): readonly StepEffect[] {
    const { outages } = this.#options
    if (outages === undefined) return []
    const step = this.#routedSteps++
    return [outages.paths, outages.routers].flatMap((all): StepEffect[] => {
      if (all.length === 0) return []
      const { rule, name, hasOtherWays } = all[step % all.length]!
      const effect = (factor: number): string => `${rule}:${lasts(factor)}ms`
      return [{ effect, what: `${name} goes down for longer than retries last`, lasts, isHidden: hasOtherWays }]
    })
  }

  /** The first link between switches on the way of the packets. */
  #ofSwitches(site: WalkSite, short: Lasts): readonly StepEffect[] {
    const used = (this.#options.ports ?? []).filter(({ host, device }) =>
      this.#sites.some(one => one.host === host && one.device === device && hasQueue(one)),
    )
    const [port] = this.#portsOf(site).filter(own => used.some(other => other.switch !== own.switch))
    if (port === undefined) return []
    return [
      {
        effect: factor => `cable=way:${short(factor)}ms`,
        what: 'a link between switches goes down for less than retries last',
        lasts: short,
        isHidden: true,
      },
      {
        effect: () => 'cable=way',
        what: 'a link between switches goes down for good',
        isHidden: port.hasOtherWays,
      },
    ]
  }

  /**
   * A manager that is gone changes nothing at ports: programs notice it that ask for a path, or join. Once in a phase.
   */
  #ofManager(site: WalkSite): readonly StepEffect[] {
    if (!this.#portsOf(site).some(({ isManaged }) => isManaged)) return []
    const key = `${site.host} ${site.role} ${site.phase}`
    if (this.#withoutManager.has(key)) return []
    this.#withoutManager.add(key)
    return [
      {
        effect: () => `manager=${MANAGER_GONE}ms`,
        what: `the subnet manager is gone for ${time(MANAGER_GONE)}`,
        lasts: () => MANAGER_GONE,
        isHidden: true,
      },
      { effect: () => `manager=${GONE_FOR_EVER}ms`, what: 'the subnet manager dies', isHidden: true },
    ]
  }

  #peers(): void {
    const { stopped, hasRestarts } = this.#options
    this.#atSteps('peers', true, [
      { effect: () => 'signal=KILL', what: 'the process is killed', kills: true },
      ...(hasRestarts
        ? [{ effect: () => 'signal=KILL', what: 'the process is killed and started again', isRestarted: true }]
        : []),
      { effect: () => `stop=${stopped}ms`, what: `the process is stopped for ${time(stopped)}`, lasts: () => stopped },
    ])
  }

  #devices(): void {
    this.#atSteps('devices', false, [
      { effect: () => 'fatal=qps', what: 'the device fails' },
      { effect: () => `gone=${GONE_FOR_EVER}ms`, what: 'the device is removed' },
      { effect: () => `gone=${GONE}ms`, what: `the device is removed for ${time(GONE)}`, lasts: () => GONE },
    ])
  }

  #events(): void {
    for (const site of this.#sites.filter(({ target }) => target === 'notice')) {
      const { host, name, isThreaded } = site
      const selectors = `notice=${name}${this.#place(site)}${inPhase(site)},nth=1`
      const add = (effect: string, text: string): void =>
        this.#add({ kind: 'events', host, site, text, rule: () => `${selectors},${effect}`, isHidden: true })
      add(`delay=${EVENT_LATE}ms`, `${name} comes ${EVENT_LATE} ms late`)
      if (isThreaded)
        add(
          `count=${EVENT_TURNS},turn=${EVENT_TURN}ms`,
          `${name} comes to the next of the threads that wait for it, ${EVENT_TURNS} times`,
        )
      if (isRepeatable(name)) add(`again=${EVENT_AGAIN}ms`, `${name} comes once more without cause`)
      else this.#leave('events', 'events of rdma_cm, which come once')
    }
  }

  plan(counts: readonly RoleCount[]): WalkPlan {
    for (const kind of this.#options.kinds) {
      if (kind in FAILING) this.#failing(kind)
      else if (kind === 'packets') this.#packets(counts)
      else if (kind === 'links') this.#links()
      else if (kind === 'peers') this.#peers()
      else if (kind === 'devices') this.#devices()
      else this.#events()
    }
    return {
      points: this.#points,
      leftOut: [...this.#leftOut.values()],
      varying: this.#options.varying,
      isCut: this.#sites.length >= MAX_SITES,
    }
  }
}

/** The points of the kinds, from what a run without failures has shown. */
export const planWalk = (sites: readonly WalkSite[], counts: readonly RoleCount[], options: PlanOptions): WalkPlan =>
  new Planner(sites, options).plan(counts)
