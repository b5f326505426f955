/*
 * What `--fault` says: rates of loss and other faults as text, `drop=0.01,reorder=0.01,seed=7`, and as a record. One
 * table names the settings, their limits and their defaults; messages and text are made from it.
 */

export interface FaultSpec {
  /** Share of packets, 0 to 1, that are lost … */
  readonly drop: number
  /** … that arrive twice … */
  readonly dup: number
  /** … that arrive after up to eight later ones … */
  readonly reorder: number
  /** … in which bits are flipped. */
  readonly corrupt: number
  /** Milliseconds by which every packet comes later … */
  readonly delay: number
  /** … and up to so many milliseconds more or less, at random. */
  readonly jitter: number
  /** Start of the random sequence: the same seed and packets give the same faults. */
  readonly seed: number
}

interface Setting {
  readonly max: number
  readonly whole?: true
  readonly allowed: string
}

const rate: Setting = { max: 1, allowed: 'a share from 0 to 1' }
const milliseconds: Setting = { max: 10000, allowed: 'milliseconds from 0 to 10000' }
const settings: Readonly<Record<keyof FaultSpec, Setting>> = {
  drop: rate,
  dup: rate,
  reorder: rate,
  corrupt: rate,
  delay: milliseconds,
  jitter: milliseconds,
  seed: { max: 0xffff_ffff, whole: true, allowed: 'an integer from 0 to 4294967295' },
}
const names = Object.keys(settings) as (keyof FaultSpec)[]

export const noFaults: FaultSpec = { drop: 0, dup: 0, reorder: 0, corrupt: 0, delay: 0, jitter: 0, seed: 1 }

/** Whether any fault can ever happen. */
export const hasFaults = (spec: FaultSpec): boolean => names.some(name => name !== 'seed' && spec[name] > 0)

const check = (spec: FaultSpec): FaultSpec => {
  if (spec.jitter > spec.delay)
    throw new Error(
      `fault jitter=${spec.jitter}: more than delay=${spec.delay}, and no packet can arrive before it was sent`,
    )
  return spec
}

/**
 * The record of a text like `drop=0.01,seed=7`; what it does not name is as in `noFaults`, and the empty text is
 * `noFaults`. Throws an Error that names the setting, its value and what is allowed.
 */
export const parseFaults = (text: string): FaultSpec => {
  const given: Partial<Record<keyof FaultSpec, number>> = {}
  for (const part of text === '' ? [] : text.split(',')) {
    const [name, value, ...rest] = part.split('=').map(word => word.trim())
    const key = names.find(known => known === name)
    if (key === undefined) throw new Error(`fault "${part}": there is no "${name}"; there are ${names.join(', ')}`)
    const { max, whole, allowed } = settings[key]
    if (value === undefined || value === '' || rest.length > 0)
      throw new Error(`fault "${part}": write ${key}=VALUE, where VALUE is ${allowed}`)
    const number = /^[0-9]*\.?[0-9]+$|^[0-9]+\.$/.test(value) ? Number(value) : Number.NaN
    if (!(number <= max) || (whole && !Number.isInteger(number)))
      throw new Error(`fault ${key}: "${value}" is not ${allowed}`)
    if (given[key] !== undefined) throw new Error(`fault ${key}: given twice, as ${given[key]} and as ${value}`)
    given[key] = number
  }
  return check({ ...noFaults, ...given })
}

/** The text that `parseFaults` reads back as the same record: only what differs from `noFaults`, in a fixed order. */
export const formatFaults = (spec: FaultSpec): string =>
  names
    .filter(name => spec[name] !== noFaults[name])
    .map(name => `${name}=${spec[name]}`)
    .join(',')
