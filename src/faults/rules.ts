/*
 * Fault rules of `--fault` and `userdma fault set`: as text, `dir=sent,opcode=RC_ACKNOWLEDGE,drop=1%,seed=7`, and as
 * records. The selectors of a rule select packets, or calls, posts, completions or contexts of programs; its effects
 * apply to them. Several rules are separated by `;`. Units are those of tc-netem, but a probability may be a plain
 * number, and a time without a unit is in milliseconds. program-rules.ts checks what only programs' rules have.
 */

import {
  bitsPerSecond,
  formatNumber,
  inRange,
  milliseconds,
  parseNumber,
  probability,
  type Setting,
} from '../base/quantities.ts'
import type { LossByRule } from '../spec/check/probes.ts'
import { Errno, type ErrnoName } from '../spec/errno.ts'
import {
  completionNames,
  FaultSettings,
  FaultTargets,
  MAX_GID_MOVE,
  MAX_LINK_TIME,
  noticeNames,
  phaseWord,
  programPhases,
  requestNames,
  ruleSignals,
  targetsOf,
} from '../spec/faults.ts'
import { DSCP_ALLOWED, readDscp } from '../spec/wire/dscp.ts'
import { ackNames } from '../spec/wire/headers.ts'
import { cmMessages } from '../spec/wire/mad.ts'
import { type OpcodeName, opcodes } from '../spec/wire/opcodes.ts'
import { WcStatus } from '../spec/work.ts'
import { checkProgramRule, isCallPattern, isClassName, isEventName } from './program-rules.ts'
import {
  CABLE_ON_WAY,
  type CableOutage,
  deviceDeaths,
  type FaultRule,
  faultCounting,
  faultDirections,
  isActive,
  type LengthRange,
  noFaults,
  ofKinds,
  packetEffects,
  targetOf,
} from './rule.ts'

type Name = keyof typeof FaultSettings

const linkTime: Setting<number> = {
  read: text => inRange(parseNumber(text, { '': 1, ms: 1, s: 1000 }), 1, MAX_LINK_TIME),
  write: formatNumber,
  allowed: `milliseconds from 1 to ${MAX_LINK_TIME}, or a time like 50ms or 3s`,
}
const cableText = ({ between, lasts }: CableOutage): string =>
  [between, lasts === undefined ? [] : `${formatNumber(lasts)}ms`].flat().join(':')
/** The time of an outage of a link, for the command. */
export const outageTime: Pick<Setting<number>, 'read' | 'allowed'> = linkTime

const parseInteger = (text: string, max: number): number | undefined =>
  /^([0-9]+|0x[0-9a-f]+)$/i.test(text) ? inRange(Number(text), 0, max) : undefined
/** `values`; undefined if one of them is undefined. */
const allOf = <T>(values: readonly (T | undefined)[]): readonly T[] | undefined =>
  values.includes(undefined) ? undefined : (values as readonly T[])

/** The opcodes that match a number or a name with `*`. Empty for any other text. */
const opcodesOf = (pattern: string): number[] => {
  const number = parseInteger(pattern, 255)
  if (number !== undefined) return [number]
  if (!/^[A-Z_*]+$/.test(pattern)) return []
  // `**` is as `*`: several `.*` in a row would backtrack for exponential time.
  const expression = new RegExp(`^${pattern.replaceAll(/\*+/g, '.*')}$`)
  return opcodes.filter(({ name }) => expression.test(name)).map(({ opcode }) => opcode)
}
const example: OpcodeName = 'RC_ACKNOWLEDGE'

/** Maximum process id of Linux (PID_MAX_LIMIT). */
const MAX_PID = 2 ** 22
const MAX_COUNT = 1e9
const MAX_PROCESS = 1e6
const upperCase = (text: string): string => text.toUpperCase().replace(/^RDMA_/, '')

/** A list of words that `isAllowed` accepts, separated by `+`. */
const listOf = (isAllowed: (word: string) => boolean, canonical: (word: string) => string = String) => ({
  read(text: string): readonly string[] | undefined {
    const words = text.split('+').map(canonical)
    return words.every(isAllowed) ? words : undefined
  },
  write: (words: readonly string[]): string => words.join('+'),
})
const number: Setting<number> = {
  read: text => (/^[0-9]+$/.test(text) ? inRange(Number(text), 1, MAX_COUNT) : undefined),
  write: String,
  allowed: `an integer from 1 to ${MAX_COUNT}`,
}
/** Numbers of at most 32 bits, from `min` on, separated by `+`. */
const numbers = (min: number, noun: string, radix: 10 | 16): Setting<readonly number[]> => ({
  read: text =>
    allOf(
      text.split('+').map(word => {
        const value = parseInteger(word, 0xffff_ffff)
        return value === undefined || value < min ? undefined : value
      }),
    ),
  write: values => values.map(value => (radix === 16 ? `0x${value.toString(16)}` : `${value}`)).join('+'),
  allowed: `${noun} from ${min} to ${radix === 16 ? '0xffffffff' : 0xffff_ffff}, or several separated by +`,
})
const MAX_WR_ID = 2n ** 64n - 1n
/** Bytes of the longest message of verbs. */
const MAX_LENGTH = 2 ** 32

const readRange = (text: string): LengthRange | undefined => {
  const [, from, dots, to] = /^([0-9]+)(\.\.)?([0-9]+)?$/.exec(text) ?? []
  const min = from === undefined ? undefined : inRange(Number(from), 0, MAX_LENGTH)
  if (min === undefined || (dots === undefined && to !== undefined)) return undefined
  const last = to === undefined ? MAX_LENGTH : Number(to)
  const max = dots === undefined ? min : inRange(last, min, MAX_LENGTH)
  return max === undefined ? undefined : { min, max }
}
const writeRange = ({ min, max }: LengthRange): string => {
  if (min === max) return `${min}`
  return max === MAX_LENGTH ? `${min}..` : `${min}..${max}`
}
const errno: Setting<ErrnoName | ''> = {
  read: text => (Object.hasOwn(Errno, text) ? (text as ErrnoName) : undefined),
  write: String,
  allowed: 'the name of an error, as ENOMEM',
}

const settings: { readonly [N in Name]: Setting<FaultRule[N]> } = {
  call: {
    ...listOf(isCallPattern),
    allowed: 'a method as traces name it (mr.create), a pattern (mr.*, *.create), or several separated by +',
  },
  completion: {
    ...listOf(name => name === '*' || completionNames.includes(name), upperCase),
    allowed: `${completionNames.join(', ')}, or *; several are separated by +`,
  },
  device: {
    read: text => (/^[\w.:-]+$/.test(text) ? text : undefined),
    write: String,
    allowed: 'the name of a device',
  },
  program: {
    read: text => (/^[^,;=]+$/.test(text) ? text : undefined),
    write: String,
    allowed: 'the name of a program',
  },
  process: {
    read: text =>
      allOf(text.split('+').map(number => (number === '0' ? undefined : parseInteger(number, MAX_PROCESS)))),
    write: numbers => numbers.join('+'),
    allowed: `the number of a process from 1 to ${MAX_PROCESS}, or several separated by +`,
  },
  role: {
    ...listOf(role => /^[0-9a-f]{8}(?:\.[1-9][0-9]{0,5})?$/.test(role)),
    allowed:
      'a role of 8 hexadecimal digits, with a number if there are several (5b1c07d2.2), or several separated by +',
  },
  phase: {
    ...listOf(word => programPhases.some(phase => phaseWord(phase) === word)),
    allowed: `${programPhases.map(phaseWord).join(', ')}; several are separated by +`,
  },
  pid: {
    read: text => allOf(text.split('+').map(pid => (pid === '0' ? undefined : parseInteger(pid, MAX_PID)))),
    write: pids => pids.join('+'),
    allowed: 'a process id, or several separated by +',
  },
  class: {
    ...listOf(isClassName),
    allowed: 'a class of `userdma schema`, or several separated by +',
  },
  site: {
    ...listOf(site => /^[0-9a-f]{8}$/.test(site)),
    allowed: 'a call site of 8 hexadecimal digits, or several separated by +',
  },
  dir: {
    read: text => faultDirections.find(direction => direction === text),
    write: String,
    allowed: faultDirections.join(', '),
  },
  qp: {
    read: text => allOf(text.split('+').map(qpn => parseInteger(qpn, 0xff_ffff))),
    write: qps => qps.map(qpn => `0x${qpn.toString(16)}`).join('+'),
    allowed: 'a QPN from 0 to 0xffffff, or several separated by +',
  },
  opcode: {
    read: text => {
      const patterns = text.toUpperCase().replaceAll('0X', '0x').split('+')
      return patterns.every(pattern => opcodesOf(pattern).length > 0) ? patterns : undefined
    },
    write: patterns => patterns.join('+'),
    allowed: `an opcode name of traces (${example}), a pattern (RC_READ_RESP_*) or a number, or several separated by +`,
  },
  cm: {
    ...listOf(
      name => Object.hasOwn(cmMessages, name),
      text => text.toUpperCase(),
    ),
    allowed: `${Object.keys(cmMessages).join(', ')}; several are separated by +`,
  },
  ack: {
    ...listOf(
      name => (ackNames as readonly string[]).includes(name),
      text => text.toUpperCase(),
    ),
    allowed: `${ackNames.join(', ')}; several are separated by +`,
  },
  notice: {
    ...listOf(
      name => name === '*' || noticeNames.includes(name),
      text => text.toUpperCase(),
    ),
    allowed: `the name of an event, as ${noticeNames.slice(0, 3).join(', ')}, or *; several are separated by +`,
  },
  request: {
    ...listOf(name => requestNames.includes(name), upperCase),
    allowed: `${requestNames.join(', ')}; several are separated by +`,
  },
  wr_id: {
    read: text =>
      allOf(
        text.split('+').map(word => {
          const value = /^([0-9]{1,20}|0x[0-9a-f]{1,16})$/i.test(word) ? BigInt(word) : undefined
          return value === undefined || value > MAX_WR_ID ? undefined : value
        }),
      ),
    write: ids => ids.join('+'),
    allowed: 'a wr_id of at most 64 bits, or several separated by +',
  },
  length: {
    read: text => allOf(text.split('+').map(readRange)),
    write: ranges => ranges.map(writeRange).join('+'),
    allowed: `bytes from 0 to ${MAX_LENGTH}, as 0, 1..64 or 4096.., or several separated by +`,
  },
  inline: {
    read: text => (text === 'yes' || text === 'no' ? text : undefined),
    write: String,
    allowed: 'yes, no',
  },
  rkey: numbers(0, 'an rkey', 16),
  imm: numbers(0, 'immediate data', 16),
  dscp: {
    read: text => allOf(text.split('+').map(readDscp)),
    write: ranges => ranges.map(({ min, max }) => (min === max ? `${min}` : `${min}..${max}`)).join('+'),
    allowed: `${DSCP_ALLOWED}, or several separated by +`,
  },
  message: numbers(1, 'the number of a message', 10),
  packet: numbers(1, 'the number of a packet', 10),
  per: {
    read: text => faultCounting.find(counting => counting === text),
    write: String,
    allowed: faultCounting.join(', '),
  },
  nth: number,
  every: number,
  share: probability,
  count: number,
  ...ofKinds(probability),
  errno,
  post: errno,
  status: {
    read: text => (text !== 'SUCCESS' && Object.hasOwn(WcStatus.values, text) ? text : undefined),
    write: String,
    allowed: 'the status of a failed completion, as RETRY_EXC_ERR',
  },
  event: {
    read: text => (isEventName(text) ? text : undefined),
    write: String,
    allowed: 'an event that a rule can raise, as PORT_ERR',
  },
  page: {
    read: text => (text === 'gone' ? text : undefined),
    write: String,
    allowed: 'gone',
  },
  link: linkTime,
  gid: {
    read: text => parseInteger(text, MAX_GID_MOVE) || undefined,
    write: String,
    allowed: `an integer from 1 to ${MAX_GID_MOVE}`,
  },
  cable: {
    read(text) {
      const words = text.split(':')
      const isWay = words[0] === CABLE_ON_WAY
      const names = words.slice(0, isWay ? 1 : 2)
      const time = words[names.length]
      const lasts = time === undefined ? undefined : linkTime.read(time)
      if (words.length > names.length + 1 || names.includes('') || (time !== undefined && lasts === undefined))
        return undefined
      if (isWay) return { between: CABLE_ON_WAY, lasts }
      const [a, b] = names
      return a === undefined || b === undefined || a === b ? undefined : { between: [a, b], lasts }
    },
    write: cable => (cable === '' ? '' : cableText(cable)),
    allowed: `two switches as leaf1:spine1, or way, and perhaps a time as leaf1:spine1:3s; ${linkTime.allowed}`,
  },
  router: {
    read(text) {
      const [, name, time] = /^([^:]+)(?::([^:]+))?$/.exec(text) ?? []
      const lasts = time === undefined ? undefined : linkTime.read(time)
      return name === undefined || (time !== undefined && lasts === undefined) ? undefined : { name, lasts }
    },
    write: router =>
      router === '' ? '' : `${router.name}${router.lasts === undefined ? '' : `:${formatNumber(router.lasts)}ms`}`,
    allowed: `the name of a router, and a time if it is to be down, as spine1:3s; ${linkTime.allowed}`,
  },
  manager: linkTime,
  gone: linkTime,
  fatal: {
    read: text => deviceDeaths.find(death => death === text),
    write: String,
    allowed: deviceDeaths.join(', '),
  },
  signal: {
    read: text => ruleSignals.find(name => name === text.toUpperCase().replace(/^SIG/, '')),
    write: String,
    allowed: ruleSignals.join(', '),
  },
  stop: linkTime,
  again: linkTime,
  turn: linkTime,
  delay: milliseconds,
  jitter: milliseconds,
  rate: bitsPerSecond,
  seed: {
    read: text => (/^[0-9]+$/.test(text) ? parseInteger(text, 0xffff_ffff) : undefined),
    write: String,
    allowed: 'an integer from 0 to 4294967295',
  },
}
const settingNames = Object.keys(FaultSettings) as Name[]
/** Most rules that a user gives. */
const MAX_RULES = 256
/** Most rules of a daemon: those of its user, those of the links of a net, and those by which walks and plays count. */
export const MAX_DAEMON_RULES = 2048
/** `Decisions.rateLimits` has a bit for each rule with a rate. */
const MAX_RATES = 32

/** The numbers of the opcodes that the rule selects; empty for all. */
export const opcodeNumbers = (rule: FaultRule): readonly number[] => rule.opcode.flatMap(opcodesOf)

const readSetting = <N extends Name>(name: N, text: string): FaultRule[N] => {
  const { read, allowed } = settings[name]
  const value = read(text)
  if (value === undefined) throw new Error(`fault ${name}: "${text}" is not ${allowed}`)
  return value
}

/**
 * Parses one rule. Absent settings are as in `noFaults`. Throws an Error with the setting, its value and what is
 * allowed.
 */
export const parseRule = (text: string): FaultRule => {
  const settingTexts = new Map<Name, string>()
  let rule = noFaults
  for (const part of text.trim() === '' ? [] : text.split(',')) {
    const [name, value, ...extraParts] = part.split('=').map(word => word.trim())
    const key = settingNames.find(setting => setting === name)
    if (key === undefined)
      throw new Error(`fault "${part}": there is no "${name}"; there are ${settingNames.join(', ')}`)
    if (value === undefined || value === '' || extraParts.length > 0)
      throw new Error(`fault "${part}": write ${key}=VALUE, where VALUE is ${settings[key].allowed}`)
    if (settingTexts.has(key)) throw new Error(`fault ${key}: given twice, as ${settingTexts.get(key)} and as ${value}`)
    settingTexts.set(key, value)
    rule = { ...rule, [key]: readSetting(key, value) }
  }
  checkTarget(text, rule, settingTexts)
  if (targetOf(rule) !== 'packet') {
    checkProgramRule(text, rule, targetOf(rule))
    return rule
  }
  if (rule.jitter > rule.delay)
    throw new Error(
      `fault jitter=${rule.jitter}: more than delay=${rule.delay}; no packet can arrive before it was sent`,
    )
  if (settingTexts.size > 0 && !packetEffects.some(name => settingTexts.has(name)))
    throw new Error(
      `fault "${text}": the rule has no effect; add one of ${packetEffects.join(', ')}, or for programs ${programEffects.join(', ')}`,
    )
  return rule
}

const programEffects = [
  'call=…,errno=…',
  'post=…',
  'completion=…,status=…',
  'event=…',
  'link=…',
  'notice=…',
  'page=gone',
]

/** Throws an Error if the rule has settings of another target than its own. */
const checkTarget = (text: string, rule: FaultRule, settingTexts: ReadonlyMap<Name, string>): void => {
  const target = targetOf(rule)
  for (const name of settingTexts.keys())
    if (!targetsOf(name).includes(target)) {
      const others = targetsOf(name).map(other => FaultTargets[other])
      throw new Error(
        `fault "${text}": ${name} is for ${others.join(' and ')}, and this rule is for ${FaultTargets[target]}; write two rules, separated by ;`,
      )
    }
}

/** The text of a rule for `parseRule`: only settings that differ from `noFaults`, in a fixed order. */
export const formatRule = (rule: FaultRule): string => {
  const text = <N extends Name>(name: N): string => `${name}=${settings[name].write(rule[name])}`
  return settingNames
    .filter(name => String(rule[name]) !== String(noFaults[name]))
    .map(text)
    .join(',')
}

/** What a rule does to packets. */
export const lossByRule = (rule: FaultRule): LossByRule => {
  const { drop, corrupt, reorder, rate, delay, jitter } = rule
  return { rule: formatRule(rule), loses: drop + corrupt + reorder + rate > 0, delay: delay + jitter }
}

/**
 * Parses rules. Empty rules, and rules whose effects are all 0, are omitted. Throws as `parseRule`, and for more than
 * `most` rules, or MAX_RATES with a rate.
 */
export const parseFaults = (text: string, most: number = MAX_RULES): FaultRule[] => {
  const rules = text.split(';').map(parseRule).filter(isActive)
  if (rules.length > most) throw new Error(`there are ${rules.length} fault rules; ${most} are allowed at most`)
  checkRates(rules)
  return rules
}

/** Throws an Error for more rules with a rate than a daemon or network may have. */
export const checkRates = (rules: readonly FaultRule[]): void => {
  const limited = rules.filter(({ rate }) => rate > 0).length
  if (limited > MAX_RATES)
    throw new Error(`there are ${limited} fault rules with a rate; ${MAX_RATES} are allowed at most`)
}

/**
 * By rule of `after`: the index of the same rule in `before`; undefined: it is new. Of equal rules each is one of its
 * own.
 */
export const sameRules = (
  before: readonly FaultRule[],
  after: readonly FaultRule[],
): readonly (number | undefined)[] => {
  const known = new Map<string, number[]>()
  before.forEach((rule, i) => {
    const text = formatRule(rule)
    known.set(text, [...(known.get(text) ?? []), i])
  })
  return after.map(rule => known.get(formatRule(rule))?.shift())
}

export const formatFaults = (rules: readonly FaultRule[]): string => rules.map(formatRule).join(';')
