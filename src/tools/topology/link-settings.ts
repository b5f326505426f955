/*
 * The settings of a link: `{ rate: 40gbit, delay: 1us, queue: 2mb, mark: 5kb-200kb-1%, loss: 0%, mtu: 9000 }`.
 */

import { linkQuantities } from '../../base/quantities.ts'
import { LineRate, Marking } from '../../spec/congestion.ts'
import { DSCP_ALLOWED, MAX_DSCP, readDscp } from '../../spec/wire/dscp.ts'
import { type LinkClass, type LinkSettings, MAX_CLASSES } from '../../transport/phy/links/graph.ts'
import { type Section, SIZES, shown, withUnit } from './section.ts'

/** A path MTU of 256 with the headers of RoCEv2 (transport/phy/udp/window.ts), and the most of a veth interface. */
export const MIN_MTU = 352
export const MAX_MTU = 65_535

export const LINK_KEYS = ['rate', 'delay', 'queue', 'mark', 'loss', 'mtu', 'classes']
const CLASS_KEYS = ['name', 'dscp', 'lossless', 'weight', 'queue', 'mark', 'xoff', 'xon', 'buffer']
/** Bytes that a switch gets from a link in a lossless class before it pauses the class. */
const DEFAULT_XOFF = 100_000
const MIN_QUEUE = 1500
const MAX_QUEUE = 1e9
const MAX_WEIGHT = 100
export const DEFAULT_LINK: LinkSettings = { rate: LineRate.DEFAULT, delay: 1, queue: 2e6, marking: Marking }

/** `5kb-200kb-1%`, or `none`; undefined: absent. */
const readMarking = (section: Section): LinkClass['marking'] => {
  if (!section.has('mark')) return undefined
  const text = section.text('mark')
  if (text === 'none') return text
  const [min, max, share, ...others] = text.split('-')
  const marking = {
    min: withUnit(min, SIZES) ?? Number.NaN,
    max: withUnit(max, SIZES) ?? Number.NaN,
    probability: (share === undefined ? undefined : linkQuantities.loss.read(share)) ?? Number.NaN,
  }
  if (others.length > 0 || !(marking.min < marking.max) || Number.isNaN(marking.probability))
    section.complain('mark', `"${text}": give MIN-MAX-PROBABILITY, for example 5kb-200kb-1%, or none`)
  return marking
}

/** The settings of a link; `fallback` has those that are absent. */
export const readSettings = (section: Section, fallback: LinkSettings): LinkSettings => {
  const marking = readMarking(section) ?? fallback.marking
  const classes = readClasses(section) ?? fallback.classes
  return {
    rate: section.rate('rate', fallback.rate),
    delay: section.time('delay', fallback.delay),
    queue: section.size('queue', fallback.queue, MIN_QUEUE, MAX_QUEUE),
    marking: marking === 'none' ? undefined : marking,
    loss: section.probability('loss', fallback.loss ?? 0),
    ...(section.has('mtu')
      ? { mtu: section.integer('mtu', undefined, MIN_MTU, MAX_MTU) }
      : fallback.mtu !== undefined && { mtu: fallback.mtu }),
    ...(classes !== undefined && { classes }),
  }
}

/** The DSCPs of a class: `26`, `af31`, `24..31`, or a list of these; undefined: what other classes leave. */
const readDscps = (section: Section): readonly number[] | undefined => {
  if (!section.has('dscp')) return undefined
  const value = section.raw('dscp')
  const dscps = (Array.isArray(value) ? Array.from(value as unknown[]) : [value]).flatMap(one => {
    const range = typeof one === 'number' || typeof one === 'string' ? readDscp(String(one)) : undefined
    if (range === undefined) section.complain('dscp', `${shown(one)}: give ${DSCP_ALLOWED}, or a list of them`)
    return Array.from({ length: range.max - range.min + 1 }, (_, i) => range.min + i)
  })
  return dscps
}

const readPause = (section: Section): LinkClass['pause'] => {
  if (!section.flag('lossless', false)) {
    const key = ['xoff', 'xon', 'buffer'].find(name => section.has(name))
    if (key !== undefined) section.complain(key, 'only a lossless class has it: lossless: true')
    return undefined
  }
  const xoff = section.size('xoff', DEFAULT_XOFF, MIN_QUEUE, MAX_QUEUE)
  const xon = section.size('xon', Math.ceil(xoff / 2), 0, xoff)
  return { xoff, xon, buffer: section.has('buffer') ? section.size('buffer', undefined, xoff, MAX_QUEUE) : undefined }
}

/** Lists of classes, which have all DSCPs; undefined: there is no such setting. Throws InputError. */
export const readClasses = (top: Section): readonly LinkClass[] | undefined => {
  if (!top.has('classes')) return undefined
  const list = top.raw('classes')
  if (!Array.isArray(list)) top.complain('classes', `${shown(list)} is not a list of classes`)
  if (list.length === 0) return []
  /** By DSCP: the name of its class. */
  const names: string[] = []
  let hasRest = false
  const classes = Array.from(list as unknown[], (value, i) => {
    const section: Section = top.item('classes', i, value, CLASS_KEYS)
    const name = section.text('name')
    if (!/^[\w-]{1,32}$/.test(name))
      section.complain('name', `"${name}": a name has 1 to 32 letters, digits, "_" and "-"`)
    const dscps = readDscps(section)
    for (const dscp of dscps ?? []) {
      if (names[dscp] !== undefined) section.complain('dscp', `${dscp} is in class ${names[dscp]} too`)
      names[dscp] = name
    }
    if (dscps === undefined && hasRest)
      section.complain('', 'is the second class without dscp; only one takes the rest')
    hasRest ||= dscps === undefined
    return {
      name,
      dscps,
      weight: section.integer('weight', 1, 1, MAX_WEIGHT),
      queue: section.has('queue') ? section.size('queue', undefined, MIN_QUEUE, MAX_QUEUE) : undefined,
      marking: readMarking(section),
      pause: readPause(section),
    }
  })
  const rest = Array.from({ length: MAX_DSCP + 1 }, (_, dscp) => dscp).filter(dscp => names[dscp] === undefined)
  const all = classes.map(one => ({ ...one, dscps: one.dscps ?? rest }))
  if (!hasRest && rest.length > 0) all.push({ ...DEFAULT_CLASS, dscps: rest })
  if (all.length > MAX_CLASSES)
    top.complain('classes', `there are ${all.length}, with that of all other DSCPs; a link has at most ${MAX_CLASSES}`)
  const twice = all.find(({ name }, i) => all.findIndex(one => one.name === name) !== i)
  if (twice !== undefined) top.complain('classes', `two classes have the name "${twice.name}"`)
  return all
}
/** The class of all DSCPs that no class has. */
const DEFAULT_CLASS = { name: 'default', weight: 1, queue: undefined, marking: undefined, pause: undefined }

/** The classes, as `readClasses` reads them. */
export const describeClasses = (classes: readonly LinkClass[]) =>
  classes.map(({ name, dscps, weight, queue, marking, pause }) => ({
    name,
    dscp: dscps,
    weight,
    ...(queue !== undefined && { queue }),
    ...(marking !== undefined && { mark: markText(marking) }),
    ...(pause !== undefined && {
      lossless: true,
      xoff: pause.xoff,
      xon: pause.xon,
      ...(pause.buffer !== undefined && { buffer: pause.buffer }),
    }),
  }))

/** What `readMarking` reads. */
export const markText = (marking: LinkClass['marking']): string =>
  marking === undefined || marking === 'none'
    ? 'none'
    : `${marking.min}b-${marking.max}b-${linkQuantities.loss.write(marking.probability)}`
