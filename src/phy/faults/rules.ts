/*
 * Fault rules of `--fault` and `userdma fault set`: as text, `dir=sent,opcode=RC_ACKNOWLEDGE,drop=1%,seed=7`, and as
 * records. A rule has selectors, which say which packets it matches, and effects; every rule that matches a packet acts
 * on it. Several rules are separated by `;`.
 *
 * One table has the settings, their limits and their syntax; the parser, messages and text are made from it. Units are
 * those of tc-netem, but a share may also be a plain number (a probability), and a time without a unit is in
 * milliseconds.
 */
import { type FaultKind, FaultSettings, faultKinds } from '../../spec/faults.ts'
import { type OpcodeName, opcodes } from '../../spec/wire/opcodes.ts'

export const faultDirections = ['received', 'sent', 'both'] as const
export type FaultDirection = (typeof faultDirections)[number]

/** Shares of packets that each kind of fault hits, 0 to 1. */
type Shares = { readonly [K in FaultKind]: number }

export interface FaultRule extends Shares {
  /** Selectors: the device, empty: all; the direction: sent, received, or both; … */
  readonly device: string
  readonly dir: FaultDirection
  /** … destination QPNs (BTH.destQP), empty: all; … */
  readonly qp: readonly number[]
  /** … opcode names, in which `*` stands for any letters, or numbers (0x11); empty: all. */
  readonly opcode: readonly string[]
  /** Effects, beside the shares of each kind: delay of every packet in milliseconds … */
  readonly delay: number
  /** … and its random variation, up to so many milliseconds more or less. */
  readonly jitter: number
  /** Rate limit, bits per second, IP headers included; 0: none. */
  readonly rate: number
  /** Seed of the random sequence: the same seed and packets give the same faults. */
  readonly seed: number
}

type Name = keyof typeof FaultSettings

interface Setting<T> {
  /** The value; undefined if the text is invalid. */
  read(text: string): T | undefined
  write(value: T): string
  readonly allowed: string
}

/** Decimals that are kept, so that written numbers read as the same again. */
const DECIMALS = 12

/** A number and its unit, as `number(text, units)`; undefined if it is neither. The unit '' is that of bare numbers. */
const number = (text: string, units: Readonly<Record<string, number>>): number | undefined => {
  const [, digits, unit] = /^([0-9]+\.?[0-9]*|\.[0-9]+)([a-z%]*)$/i.exec(text) ?? []
  const scale = digits === undefined ? undefined : units[unit.toLowerCase()]
  // Twelve digits, so that 0.1 % is 0.001, and at most as many decimals as `plain` writes.
  return scale === undefined ? undefined : Number(Number((Number(digits) * scale).toPrecision(12)).toFixed(DECIMALS))
}
const within = (value: number | undefined, min: number, max: number): number | undefined =>
  value !== undefined && value >= min && value <= max ? value : undefined

/** Without an exponent, which `number` does not parse. */
const plain = (value: number): string => value.toFixed(DECIMALS).replace(/\.?0+$/, '')

const probability: Setting<number> = {
  read: text => within(number(text, { '': 1, '%': 0.01 }), 0, 1),
  write: plain,
  allowed: 'a share from 0 to 1 or from 0% to 100%',
}
const milliseconds: Setting<number> = {
  read: text => within(number(text, { '': 1, us: 0.001, ms: 1, s: 1000 }), 0, 10000),
  write: plain,
  allowed: 'milliseconds from 0 to 10000, or a time like 200us, 5ms or 1s',
}
const RATES = { tbit: 1e12, gbit: 1e9, mbit: 1e6, kbit: 1e3, bit: 1, '': 1 } as const
const bitsPerSecond: Setting<number> = {
  read: text => within(number(text, RATES), 1000, 1e12),
  write: value => {
    const [unit, scale] = Object.entries(RATES).find(([, scale]) => value >= scale) ?? ['', 1]
    return `${plain(value / scale)}${unit}`
  },
  allowed: 'bits per second from 1kbit to 1tbit, like 800kbit, 10mbit or 2.5gbit',
}
const integer = (text: string, max: number): number | undefined =>
  /^([0-9]+|0x[0-9a-f]+)$/i.test(text) ? within(Number(text), 0, max) : undefined
const all = <T>(values: readonly (T | undefined)[]): readonly T[] | undefined =>
  values.includes(undefined) ? undefined : (values as readonly T[])

/** Numbers of the opcodes that match a pattern. */
const opcodesOf = (pattern: string): number[] => {
  const fixed = integer(pattern, 255)
  if (fixed !== undefined) return [fixed]
  if (!/^[A-Z_*]+$/.test(pattern)) return []
  const expression = new RegExp(`^${pattern.replaceAll('*', '.*')}$`)
  return opcodes.filter(({ name }) => expression.test(name)).map(({ opcode }) => opcode)
}
const example: OpcodeName = 'RC_ACKNOWLEDGE'

const ofKinds = <T>(value: T): Record<FaultKind, T> =>
  Object.fromEntries(faultKinds.map(kind => [kind, value])) as Record<FaultKind, T>

const settings: { readonly [N in Name]: Setting<FaultRule[N]> } = {
  device: {
    read: text => (/^[\w.:-]+$/.test(text) ? text : undefined),
    write: String,
    allowed: 'the name of a device',
  },
  dir: {
    read: text => faultDirections.find(known => known === text),
    write: String,
    allowed: faultDirections.join(', '),
  },
  qp: {
    read: text => all(text.split('+').map(one => integer(one, 0xff_ffff))),
    write: qps => qps.map(qpn => `0x${qpn.toString(16)}`).join('+'),
    allowed: 'a number of a queue pair from 0 to 0xffffff, or several with + between them',
  },
  opcode: {
    read: text => {
      const patterns = text.toUpperCase().replaceAll('0X', '0x').split('+')
      return patterns.every(pattern => opcodesOf(pattern).length > 0) ? patterns : undefined
    },
    write: patterns => patterns.join('+'),
    allowed: `an opcode as traces have it (${example}), a pattern (RC_READ_RESP_*) or a number, or several with + between them`,
  },
  ...ofKinds(probability),
  delay: milliseconds,
  jitter: milliseconds,
  rate: bitsPerSecond,
  seed: {
    read: text => (/^[0-9]+$/.test(text) ? integer(text, 0xffff_ffff) : undefined),
    write: String,
    allowed: 'an integer from 0 to 4294967295',
  },
}
const names = Object.keys(FaultSettings) as Name[]
const effects: readonly (FaultKind | 'delay' | 'jitter' | 'rate')[] = [...faultKinds, 'delay', 'jitter', 'rate']

/** A rule for all received packets without effects. */
export const noFaults: FaultRule = {
  device: '',
  dir: 'received',
  qp: [],
  opcode: [],
  ...ofKinds(0),
  delay: 0,
  jitter: 0,
  rate: 0,
  seed: 1,
}

/** Maximum rules at a time. */
export const MAX_RULES = 32

/** Whether the rule has any effect. */
export const isActive = (rule: FaultRule): boolean => effects.some(name => rule[name] > 0)

/** Numbers of the opcodes that the rule matches; empty for all. */
export const opcodeNumbers = (rule: FaultRule): readonly number[] => rule.opcode.flatMap(opcodesOf)

const readSetting = <N extends Name>(name: N, text: string): FaultRule[N] => {
  const { read, allowed } = settings[name]
  const value = read(text)
  if (value === undefined) throw new Error(`fault ${name}: "${text}" is not ${allowed}`)
  return value
}

/**
 * The record of one rule; settings that are not named are as in `noFaults`, and the empty text is `noFaults`. Throws an
 * Error that names the setting, its value and what is allowed.
 */
export const parseRule = (text: string): FaultRule => {
  const given = new Map<Name, string>()
  let rule = noFaults
  for (const part of text.trim() === '' ? [] : text.split(',')) {
    const [name, value, ...rest] = part.split('=').map(word => word.trim())
    const key = names.find(known => known === name)
    if (key === undefined) throw new Error(`fault "${part}": there is no "${name}"; there are ${names.join(', ')}`)
    if (value === undefined || value === '' || rest.length > 0)
      throw new Error(`fault "${part}": write ${key}=VALUE, where VALUE is ${settings[key].allowed}`)
    if (given.has(key)) throw new Error(`fault ${key}: given twice, as ${given.get(key)} and as ${value}`)
    given.set(key, value)
    rule = { ...rule, [key]: readSetting(key, value) }
  }
  if (rule.jitter > rule.delay)
    throw new Error(
      `fault jitter=${rule.jitter}: more than delay=${rule.delay}, and no packet can arrive before it was sent`,
    )
  if (given.size > 0 && !effects.some(name => given.has(name)))
    throw new Error(`fault "${text}": it does not say what happens to packets; add one of ${effects.join(', ')}`)
  return rule
}

/** The text that `parseRule` reads back as the same record: only what differs from `noFaults`, in a fixed order. */
export const formatRule = (rule: FaultRule): string => {
  const text = <N extends Name>(name: N): string => `${name}=${settings[name].write(rule[name])}`
  return names
    .filter(name => String(rule[name]) !== String(noFaults[name]))
    .map(text)
    .join(',')
}

/** All rules of a text that have an effect, in order. Throws as `parseRule`, and for more than MAX_RULES. */
export const parseFaults = (text: string): FaultRule[] => {
  const rules = text.split(';').map(parseRule).filter(isActive)
  if (rules.length > MAX_RULES)
    throw new Error(`there are ${rules.length} fault rules; ${MAX_RULES} are allowed at most`)
  return rules
}

/** The text that `parseFaults` reads back as the same rules. */
export const formatFaults = (rules: readonly FaultRule[]): string => rules.map(formatRule).join(';')
