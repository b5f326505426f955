/*
 * Reads a scenario of `userdma net play` (docs/how-to/net.md): programs on hosts of a net, what must hold, and
 * failures with their moments. Moments that count what programs do are fault rules that never act, whose matches are
 * watched. An error names the setting by its path, the value as written, and what is allowed.
 */
import { basename } from 'node:path'
import { linkQuantities } from '../../base/quantities.ts'
import { didYouMean } from '../../base/suggest.ts'
import { CABLE_ON_WAY, type FaultRule, noFaults, targetOf } from '../../faults/rule.ts'
import { formatRule, parseFaults, parseRule } from '../../faults/rules.ts'
import { type LinkConditions, parseConditions } from '../../settings/fabric.ts'
import { MAX_LINK_TIME } from '../../spec/faults.ts'
import { UnreadableFile } from './input-error.ts'
import { readInputFile } from './input-file.ts'
import { documentOf } from './links-file.ts'
import type { Section } from './section.ts'

/** A host of the net: what events may name. */
export interface ScenarioHost {
  readonly name: string
  /** False: `driver: none`. */
  readonly hasDaemon: boolean
  readonly devices: readonly string[]
  readonly interfaces: readonly string[]
  /** Its GIDs do not come from addresses. */
  readonly hasFabric: boolean
}

/** What events may name of a net. */
export interface ScenarioNet {
  readonly hosts: readonly ScenarioHost[]
  /** Links between switches that may go down: those of InfiniBand. */
  readonly cables: readonly (readonly [string, string])[]
  readonly routers: readonly string[]
  /** Links of routers to others and to switches. */
  readonly paths: readonly (readonly [string, string])[]
}

/** What is waited for; `after` milliseconds later it is time. */
export interface Moment {
  readonly after: number
  readonly when?: LineTrigger | CountTrigger
}
export interface LineTrigger {
  readonly kind: 'line'
  readonly program: string
  readonly pattern: RegExp
}
export interface CountTrigger {
  readonly kind: 'count'
  readonly host: string
  readonly nth: number
  /** Selectors of a fault rule. */
  readonly selectors: string
  /** An effect that makes it a rule. */
  readonly effect: string
  /** The rule can take the link of its host down itself, at the very moment. */
  readonly canCutLink: boolean
}

const restarts = ['never', 'on-failure', 'always'] as const

export interface PlayProgram {
  readonly name: string
  readonly host: string
  /** A line for a shell. */
  readonly run: string
  readonly restart: (typeof restarts)[number]
  readonly start: Moment
  /** Absent: how the program ends does not matter. */
  readonly expect?: { readonly exit: number; readonly within: number; readonly output?: RegExp }
}

/** Times are milliseconds. */
export type PlayAction =
  | { readonly kind: 'link'; readonly host: string; readonly device: string; readonly down: number }
  | { readonly kind: 'cable'; readonly between: readonly [string, string]; readonly down: number }
  /** The links between two routers, or a router and a switch, or all of a router. */
  | { readonly kind: 'path'; readonly between: readonly [string, string]; readonly down: number }
  | { readonly kind: 'router'; readonly name: string; readonly down: number }
  /** What a link between switches does to packets, for a time; 0: to the end. */
  | {
      readonly kind: 'conditions'
      readonly between: readonly [string, string]
      readonly conditions: LinkConditions
      readonly for: number
    }
  | { readonly kind: 'gid'; readonly host: string; readonly interface: string; readonly move: number }
  | { readonly kind: 'address'; readonly host: string; readonly interface: string; readonly gone: number }
  | { readonly kind: 'fault'; readonly host: string; readonly rules: string; readonly for: number }
  | { readonly kind: 'device'; readonly host: string; readonly device: string; readonly gone: number }
  | { readonly kind: 'daemon'; readonly host: string; readonly gone: number }
  | { readonly kind: 'kill'; readonly program: string }
  | { readonly kind: 'stop'; readonly program: string; readonly for: number }

export interface PlayEvent {
  readonly moment: Moment
  readonly action: PlayAction
  /** For the report. */
  readonly text: string
}

export interface Scenario {
  /** Path of the topology. */
  readonly net: string
  readonly seed: number
  readonly programs: readonly PlayProgram[]
  readonly events: readonly PlayEvent[]
}

const MAX_FILE_BYTES = 2 ** 18
const MAX_PROGRAMS = 256
const MAX_EVENTS = 256
/** Fault rules of all events. */
const MAX_FAULTS = 256
/** Names in a message. */
const MAX_LISTED = 8
const MAX_SEED = 0xffff_ffff
const MAX_MOVE = 8
const MAX_EXIT = 255
const DEFAULT_INTERFACE = 'eth0'
/** Milliseconds. */
const DEFAULT_WITHIN = 60_000
/** µs. */
const MAX_CUT = MAX_LINK_TIME * 1000
/** No rule with this `nth` acts. */
const NEVER = 'nth=1000000000'

const PROGRAM_KEYS = ['host', 'run', 'command', 'restart', 'after', 'when', 'expect']
const EVENT_KEYS = ['after', 'when', 'link', 'router', 'gid', 'fault', 'device', 'daemon', 'kill', 'stop']
const CONDITION_KEYS = ['rate', 'delay', 'loss'] as const
const WHEN_KEYS = ['line', 'completions', 'calls', 'posts', 'events', 'packets']

/** What each kind of count selects: its selectors with `of`, and the effect of its rule. */
const COUNTS: Readonly<Record<string, readonly [string, string, string]>> = {
  completions: ['completion', '*', 'link=1ms'],
  calls: ['call', '*.*', 'delay=1ms'],
  posts: ['request', '', 'post=ENOMEM'],
  events: ['notice', '*', 'delay=1ms'],
  packets: ['opcode', '', 'drop=1'],
}

/** By target of a rule: the effect of a rule that counts. */
const OUTAGE_COUNTS: Readonly<Partial<Record<string, string>>> = {
  completion: COUNTS.completions![2],
  call: COUNTS.calls![2],
}

const milliseconds = (section: Section, key: string, fallback?: number, max?: number): number =>
  section.time(key, fallback === undefined ? undefined : fallback * 1000, fallback === undefined ? 1000 : 0, max) / 1000

const patternOf = (section: Section, key: string): RegExp => {
  const text = section.text(key)
  try {
    return new RegExp(text)
  } catch (error) {
    return section.complain(key, `${JSON.stringify(text)}: ${(error as Error).message}`)
  }
}

const oneKey = (section: Section, keys: readonly string[]): string => {
  const [key, ...others] = keys.filter(name => section.has(name))
  if (key === undefined || others.length > 0) section.complain('', `give one of ${keys.join(', ')}`)
  return key as string
}

/** `rate`, `delay` and `loss` of a link between switches; without one, or with 0, it has none. */
const conditionKeys = (link: Section): LinkConditions => {
  const texts = CONDITION_KEYS.flatMap(key => (link.has(key) ? [`${key}=${link.text(key)}`] : []))
  try {
    return texts.length === 0 ? {} : parseConditions(texts.join('/'))
  } catch (error) {
    return link.complain('', (error as Error).message)
  }
}

/** The first command of a shell's line, as the kernel names its process. */
const firstCommand = (run: string): string => basename(run.trim().split(/\s+/)[0] ?? '')

/** A name that is not among `names`, and these. */
const unknown = (name: string, names: readonly string[]): string =>
  `"${name}"${didYouMean(name, names) || `; there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ') || 'none'}`}`

const noDaemon = ({ name }: ScenarioHost, what: string): string =>
  `host "${name}" has no daemon (driver: none), and ${what}`

/** The fault rules of a text for a host. Throws an Error: a wrong rule, or one for a device that the host has not. */
const faultsOf = (text: string, { name, devices }: ScenarioHost): readonly FaultRule[] => {
  const rules = parseFaults(text)
  const { device } = rules.find(rule => rule.device !== '' && !devices.includes(rule.device)) ?? {}
  if (device !== undefined) throw new Error(`fault device: host "${name}" has no device ${unknown(device, devices)}`)
  return rules
}

/** The link with these two ends. */
const linkBetween = (names: unknown, links: ScenarioNet['cables']): readonly [string, string] | undefined =>
  links.find(pair => Array.isArray(names) && names.length === 2 && pair.every(name => names.includes(name)))

/**
 * The event that a rule of a host stands for which takes a router, or the links between two ends of which one is a
 * router, down for a time; undefined: the rule is one of the host's daemon. Throws an Error: the net has no such
 * router, or the rule selects neither calls nor completions.
 */
export const outageEventOf = (
  text: string,
  host: ScenarioHost,
  { routers, paths }: Pick<ScenarioNet, 'routers' | 'paths'>,
): PlayEvent | undefined => {
  const [rule, ...others] = faultsOf(text, host)
  if (rule === undefined || others.length > 0) return undefined
  const { router, cable, nth } = rule
  const ends = cable === '' || cable.between === CABLE_ON_WAY ? [] : cable.between
  const between = linkBetween(ends, paths)
  const lasts = router === '' ? cable !== '' && cable.lasts : router.lasts
  if (router === '' && between === undefined) return undefined
  if (router !== '' && !routers.includes(router.name))
    throw new Error(`fault router: the net has no router ${unknown(router.name, routers)}`)
  const { [targetOf(rule)]: effect } = OUTAGE_COUNTS
  if (lasts === undefined || lasts === false || effect === undefined)
    throw new Error(
      `fault "${text}": in a net a rule takes a router or its links down for a time, at a call or completion: completion=*,nth=1,router=${routers[0]}:3s`,
    )
  const selectors = formatRule({ ...rule, router: '', cable: '', nth: noFaults.nth })
  const when: CountTrigger = { kind: 'count', host: host.name, nth: nth || 1, selectors, effect, canCutLink: false }
  const down = lasts
  const action: PlayAction =
    router === '' ? { kind: 'path', between: between!, down } : { kind: 'router', name: router.name, down }
  return { moment: { after: 0, when }, action, text: actionText(action) }
}

class Reader {
  /** By name. `command`: the name of its process. */
  readonly #programs = new Map<string, { readonly host: string; readonly run: string; readonly command: string }>()
  readonly #hosts: ReadonlyMap<string, ScenarioHost>
  readonly #cables: ScenarioNet['cables']
  readonly #routers: ScenarioNet['routers']
  readonly #paths: ScenarioNet['paths']
  /** Fault rules of events so far. */
  #rules = 0

  constructor({ hosts, cables, routers, paths }: ScenarioNet) {
    this.#routers = routers
    this.#paths = paths
    this.#hosts = new Map(hosts.map(host => [host.name, host]))
    this.#cables = cables
  }

  #host(section: Section): ScenarioHost {
    const name = section.text('host')
    const found = this.#hosts.get(name)
    return found ?? section.complain('host', `the net has no host ${unknown(name, [...this.#hosts.keys()])}`)
  }

  /** A host with a daemon. `what`: of `section`, needs one. */
  #hostWithDaemon(section: Section, what: string): ScenarioHost {
    const host = this.#host(section)
    if (!host.hasDaemon) section.complain('host', noDaemon(host, what))
    return host
  }

  /** A device of the host; '' if the setting is absent and the host has some. */
  #device(section: Section, { name: host, devices }: ScenarioHost): string {
    if (devices.length === 0) section.complain('host', `host "${host}" has no device`)
    const name = section.text('device', '')
    if (section.has('device') && !devices.includes(name))
      section.complain('device', `host "${host}" has no device ${unknown(name, devices)}`)
    return name
  }

  #interface(section: Section, { name: host, interfaces }: ScenarioHost): string {
    const name = section.text('interface', DEFAULT_INTERFACE)
    if (!interfaces.includes(name))
      section.complain(
        section.has('interface') ? 'interface' : 'host',
        `host "${host}" has no interface ${unknown(name, interfaces)}`,
      )
    return name
  }

  #program(section: Section, key: string): string {
    const name = section.text(key)
    const names = [...this.#programs.keys()]
    if (!this.#programs.has(name)) section.complain(key, `there is no program ${unknown(name, names)}`)
    return name
  }

  #trigger(section: Section): LineTrigger | CountTrigger {
    const kind = oneKey(section, WHEN_KEYS)
    if (kind === 'line') {
      const line = section.section('line', ['program', 'matches'])
      return { kind, program: this.#program(line, 'program'), pattern: patternOf(line, 'matches') }
    }
    const counted = section.section(kind, kind === 'packets' ? ['host', 'nth', 'of'] : ['program', 'nth', 'of'])
    const [selector, all, effect] = COUNTS[kind]!
    const of = counted.text('of', all)
    const what = `\`${kind}\` are counted by the daemon`
    const program = kind === 'packets' ? undefined : this.#programs.get(this.#program(counted, 'program'))!
    const host = program === undefined ? this.#hostWithDaemon(counted, what) : this.#hosts.get(program.host)!
    if (!host.hasDaemon) counted.complain('program', noDaemon(host, what))
    const selectors = [
      of === '' ? '' : `${selector}=${of}`,
      program === undefined ? 'dir=sent' : this.#isAlone(program.host) ? '' : `program=${program.command}`,
    ]
    const trigger: CountTrigger = {
      kind: 'count',
      host: host.name,
      nth: counted.integer('nth', undefined, 1, 1e9 - 1),
      selectors: selectors.filter(Boolean).join(','),
      effect,
      canCutLink: kind === 'completions' || kind === 'calls',
    }
    try {
      parseRule(ruleOf(trigger))
    } catch (error) {
      counted.complain('', (error as Error).message)
    }
    return trigger
  }

  /** Whether the host has one program: then all its processes are that. */
  #isAlone(host: string): boolean {
    return [...this.#programs.values()].filter(program => program.host === host).length === 1
  }

  #moment(section: Section): Moment {
    const after = milliseconds(section, 'after', 0)
    return section.has('when') ? { after, when: this.#trigger(section.section('when', WHEN_KEYS)) } : { after }
  }

  programs(top: Section): PlayProgram[] {
    const all = top.map('programs')
    const names = all.keys()
    if (names.length === 0 || names.length > MAX_PROGRAMS)
      top.complain('programs', `give 1 to ${MAX_PROGRAMS} programs`)
    const sections = names.map(name => all.section(name, PROGRAM_KEYS))
    // first all names, to which moments refer
    names.forEach((name, i) => {
      const section = sections[i]!
      const run = section.text('run')
      const command = section.text('command', firstCommand(run))
      this.#programs.set(name, { host: this.#host(section).name, run, command })
    })
    return names.map((name, i) => {
      const section = sections[i]!
      const restart = section.has('restart') ? section.oneOf('restart', restarts) : 'never'
      const { host, run } = this.#programs.get(name)!
      const program = { name, host, run, restart, start: this.#moment(section) }
      if (!section.has('expect')) return program
      if (restart === 'always') section.complain('expect', 'a program with restart: always never ends')
      const expect = section.section('expect', ['exit', 'within', 'output'])
      return {
        ...program,
        expect: {
          exit: expect.integer('exit', 0, 0, MAX_EXIT),
          within: milliseconds(expect, 'within', DEFAULT_WITHIN),
          ...(expect.has('output') && { output: patternOf(expect, 'output') }),
        },
      }
    })
  }

  #action(section: Section): PlayAction {
    const kind = oneKey(section, EVENT_KEYS.slice(2))
    if (kind === 'kill') return { kind, program: this.#program(section, 'kill') }
    if (kind === 'stop') {
      const stop = section.section('stop', ['program', 'for'])
      return { kind, program: this.#program(stop, 'program'), for: milliseconds(stop, 'for') }
    }
    if (kind === 'link') {
      const link = section.section('link', ['host', 'device', 'between', 'down', ...CONDITION_KEYS, 'for'])
      const given = [...CONDITION_KEYS, 'for'].find(key => link.has(key))
      if (link.has('between') && given !== undefined) return this.#conditions(link)
      if (given !== undefined)
        link.complain(
          given,
          'a link between InfiniBand switches can have it; of the link of a host it is a fault, such as fault: { host: h1, rules: "delay=5ms" }',
        )
      const down = milliseconds(link, 'down', undefined, MAX_CUT)
      const between = link.has('between') && linkBetween(link.raw('between'), this.#paths)
      if (between) return { kind: 'path', between, down }
      if (link.has('between')) return { kind: 'cable', between: this.#cable(link), down }
      const host = this.#hostWithDaemon(link, 'the link of a device goes down')
      return { kind, host: host.name, device: this.#device(link, host), down }
    }
    if (kind === 'router') {
      const router = section.section('router', ['name', 'down'])
      const name = router.text('name')
      if (!this.#routers.includes(name))
        router.complain('name', `the net has no router ${unknown(name, this.#routers)}`)
      return { kind, name, down: milliseconds(router, 'down', undefined, MAX_CUT) }
    }
    if (kind === 'device') {
      const device = section.section('device', ['host', 'device', 'gone'])
      const gone = milliseconds(device, 'gone')
      const host = this.#hostWithDaemon(device, 'a device is removed')
      return { kind, host: host.name, device: this.#device(device, host), gone }
    }
    if (kind === 'daemon') {
      const daemon = section.section('daemon', ['host', 'gone'])
      const host = this.#hostWithDaemon(daemon, 'a daemon is killed')
      return { kind, host: host.name, gone: milliseconds(daemon, 'gone') }
    }
    if (kind === 'fault') {
      const fault = section.section('fault', ['host', 'rules', 'for'])
      const host = this.#hostWithDaemon(fault, 'faults are injected by the daemon')
      const rules = this.#faults(fault, host)
      return { kind, host: host.name, rules, for: milliseconds(fault, 'for', 0) }
    }
    const gid = section.section('gid', ['host', 'interface', 'move', 'gone'])
    const host = this.#hostWithDaemon(gid, "a GID is a device's")
    if (host.hasFabric)
      gid.complain(
        'host',
        `the GIDs of host "${host.name}", which has InfiniBand ports, do not come from its addresses`,
      )
    const place = { host: host.name, interface: this.#interface(gid, host) }
    if (oneKey(gid, ['move', 'gone']) === 'move')
      return { kind: 'gid', ...place, move: gid.integer('move', undefined, 1, MAX_MOVE) }
    return { kind: 'address', ...place, gone: milliseconds(gid, 'gone') }
  }

  /** Rate, delay and loss of a link between switches. */
  #conditions(link: Section): PlayAction {
    if (linkBetween(link.raw('between'), this.#paths) !== undefined)
      link.complain(
        'between',
        'the link of a router can go down (down: 3s); rate, delay and loss change only between InfiniBand switches',
      )
    const between = this.#cable(link)
    if (link.has('down')) link.complain('down', 'a link that is down has no rate, delay or loss; leave one of them out')
    const conditions = conditionKeys(link)
    if (Object.keys(conditions).length === 0 && !CONDITION_KEYS.some(key => link.has(key)))
      link.complain('for', `give one of ${CONDITION_KEYS.join(', ')} too`)
    return { kind: 'conditions', between, conditions, for: milliseconds(link, 'for', 0, MAX_CUT) }
  }

  /** The switches of `between`. */
  #cable(link: Section): readonly [string, string] {
    for (const other of ['host', 'device'])
      if (link.has(other)) link.complain(other, `a link between switches has no ${other}; leave one of them out`)
    const names = link.raw('between')
    const found = linkBetween(names, this.#cables)
    const known = [...this.#cables, ...this.#paths]
    if (found === undefined)
      link.complain(
        'between',
        `${JSON.stringify(names)} is no link between InfiniBand switches or of routers; ${
          known.length === 0
            ? 'the net has none'
            : `there are ${known
                .slice(0, MAX_LISTED)
                .map(pair => `[${pair.join(', ')}]`)
                .join(', ')}${known.length > MAX_LISTED ? ' …' : ''}`
        }`,
      )
    return found as readonly [string, string]
  }

  /** The rules of a `fault`. */
  #faults(fault: Section, host: ScenarioHost): string {
    const text = fault.text('rules')
    try {
      this.#rules += faultsOf(text, host).length
      if (this.#rules > MAX_FAULTS)
        throw new Error(`the events have ${this.#rules} fault rules; ${MAX_FAULTS} are allowed at most`)
    } catch (error) {
      fault.complain('rules', (error as Error).message)
    }
    return text
  }

  events(top: Section): PlayEvent[] {
    const list = top.raw('events') ?? []
    if (!Array.isArray(list) || list.length > MAX_EVENTS) top.complain('events', `give a list of at most ${MAX_EVENTS}`)
    return (list as unknown[]).map((value, i) => {
      const section = top.item('events', i, value, EVENT_KEYS)
      const action = this.#action(section)
      return { moment: this.#moment(section), action, text: actionText(action) }
    })
  }
}

const time = (value: number): string => (value >= 1000 ? `${value / 1000}s` : `${value}ms`)

const actionText = (action: PlayAction): string => {
  switch (action.kind) {
    case 'link':
      return `the link of ${action.device || 'the devices'} of ${action.host} goes down for ${time(action.down)}`
    case 'router':
      return `the router ${action.name} goes down for ${time(action.down)}`
    case 'cable':
    case 'path':
      return `the link between ${action.between.join(' and ')} goes down for ${time(action.down)}`
    case 'conditions': {
      const { rate, delay, loss } = action.conditions
      const parts = [
        ...(rate === undefined ? [] : [`a rate of ${linkQuantities.rate.write(rate)}`]),
        ...(delay === undefined ? [] : [`a delay of ${delay}ms`]),
        ...(loss === undefined ? [] : [`a loss of ${Number((100 * loss).toPrecision(6))}%`]),
      ]
      return `the link between ${action.between.join(' and ')} has ${parts.join(', ') || 'no rate, delay and loss'}${action.for > 0 ? ` for ${time(action.for)}` : ''}`
    }
    case 'gid':
      return `the address of ${action.interface} of ${action.host} returns at an index ${action.move} higher`
    case 'address':
      return `${action.interface} of ${action.host} has no address for ${time(action.gone)}`
    case 'fault':
      return `faults on ${action.host}${action.for > 0 ? ` for ${time(action.for)}` : ''}: ${action.rules}`
    case 'device':
      return `${action.device || 'the device'} of ${action.host} is removed for ${time(action.gone)}`
    case 'daemon':
      return `the daemon of ${action.host} is killed, and starts again after ${time(action.gone)}`
    case 'kill':
      return `${action.program} is killed`
    case 'stop':
      return `${action.program} is stopped for ${time(action.for)}`
  }
}

/**
 * The rule of a trigger. `link`: milliseconds for which it takes the link down at its moment; absent: it never acts.
 */
export const ruleOf = ({ selectors, effect, nth }: CountTrigger, link?: number): string =>
  [selectors, ...(link === undefined ? [NEVER, effect] : [`nth=${nth}`, `link=${link}ms`])].filter(Boolean).join(',')

const KEYS = ['net', 'seed', 'programs', 'events']

/** A mistake in the topology has its place there; that there is no such file is one of the scenario. */
const readNet = (top: Section, net: string, partsOf: (net: string) => ScenarioNet): ScenarioNet => {
  try {
    return partsOf(net)
  } catch (error) {
    if (error instanceof UnreadableFile) top.complain('net', error.message)
    throw error
  }
}

/** Reads a scenario; `partsOf` reads the topology of this name. Throws InputError. */
export const readScenario = (file: string, partsOf: (net: string) => ScenarioNet): Scenario => {
  const top = documentOf(readInputFile(file, 'scenario', MAX_FILE_BYTES), file, KEYS)
  const net = top.text('net')
  const seed = top.integer('seed', 1, 0, MAX_SEED)
  const reader = new Reader(readNet(top, net, partsOf))
  const programs = reader.programs(top)
  if (programs.every(({ expect }) => expect === undefined))
    top.complain('programs', 'give one of them `expect`: the play ends when those programs have ended')
  return { net, seed, programs, events: reader.events(top) }
}
