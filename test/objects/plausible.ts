/*
 * Plausible calls of every class and method of a device, made from its declarations: values within their limits, small
 * where small values make more calls succeed, and handles and descriptors of existing objects.
 */
import { CtxInterface } from '../../src/spec/drivers/ctx.ts'
import {
  type AnyRecord,
  type AnyValue,
  type AnyValues,
  CREATE,
  CREATE_FD,
  type Fields,
  type Kind,
  type ObjectClass,
  recordSize,
} from '../../src/spec/schema/schema.ts'
import type { Call } from '../../src/uapi/call.ts'
import { encodeChain, type Link } from '../../src/uapi/object/chain.ts'
import type { RandomSource } from '../model/random.ts'

/** Objects that calls may name. */
export interface Names {
  readonly random: RandomSource
  readonly classes: readonly ObjectClass[]
  /** Class by live handle. */
  readonly handles: ReadonlyMap<number, string>
  /** Class by descriptor number. */
  readonly fds: ReadonlyMap<number, string>
  /** Registrable memory of the caller. */
  readonly address: bigint
  readonly gid: Uint8Array
}

/** Plausible values, by the name of attribute or field; other numbers are usually 0 to 3. */
const likely: Readonly<Record<string, (names: Names) => AnyValue>> = {
  start: ({ address }) => address,
  iova: ({ address }) => address,
  length: ({ random }) => BigInt(random.pick([1, 64, 4096])),
  dgid: ({ gid }) => gid,
  gid: ({ random }) => new Uint8Array(16).fill(random.int(3), 1).fill(0xff, 0, 1),
  sgidIndex: () => 1,
  isGlobal: () => 1,
  port: () => 1,
  access: ({ random }) => random.pick([1, 7, 15, 31]),
  accessFlags: ({ random }) => random.pick([1, 7, 15]),
  compVector: ({ random }) => random.int(2),
  pathMtu: () => 3,
  cqe: ({ random }) => 1 + random.int(64),
  maxWr: ({ random }) => 1 + random.int(16),
  maxInlineData: () => 0,
  name: ({ random }) => new TextEncoder().encode(random.pick(Object.values(CtxInterface))),
  eagerCount: ({ random }) => 1 << random.int(4),
  eagerBytes: () => 64,
  jobKey: ({ random }) => random.int(2),
  object: () => 1,
  handle: ({ handles, random }) => (handles.size > 0 ? random.pick([...handles.keys()]) : 0),
  id: ({ random, classes }) => random.pick(classes).id,
}

const highest = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

const named = ({ random }: Names, there: ReadonlyMap<number, string>, cls: string): number => {
  const right = [...there].filter(([, name]) => name === cls)
  if (right.length > 0 && random.hits(0.9)) return random.pick(right)[0]
  return there.size > 0 && random.hits(0.5) ? random.pick([...there.keys()]) : random.int(100)
}

/** A value for an attribute or field of this name. */
export const likelyValue = (names: Names, name: string, of: Kind): AnyValue => {
  const { random } = names
  const hint = random.hits(0.95) ? likely[name] : undefined
  switch (of.kind) {
    case 'u8':
    case 'u16':
    case 'u32': {
      const min = of.min ?? 0
      const max = of.max ?? highest[of.kind]
      const wanted = hint?.(names) ?? min + random.int(random.hits(0.95) ? 4 : 0x1_0000_0000)
      return Math.min(Math.max(Number(wanted), min), max)
    }
    case 'u64':
      return (hint?.(names) as bigint | undefined) ?? BigInt(random.u32()) << (random.hits(0.5) ? 32n : 0n)
    case 'enum':
      return (hint?.(names) as number | undefined) ?? random.pick(Object.values(of.of.values))
    case 'flags':
      return (hint?.(names) as number | undefined) ?? (random.hits(0.5) ? 0 : random.pick(Object.values(of.of.values)))
    case 'ref':
      return named(names, names.handles, of.class)
    case 'fd':
      return named(names, names.fds, of.class)
    case 'bytes': {
      const bytes = new Uint8Array(of.size)
      random.fill(bytes)
      return (hint?.(names) as Uint8Array | undefined) ?? bytes
    }
    case 'blob': {
      const bytes = new Uint8Array(random.int(Math.min(of.max, 64)))
      random.fill(bytes)
      return (hint?.(names) as Uint8Array | undefined) ?? bytes
    }
    case 'record':
      return record(names, of.fields)
    case 'list':
      return Array.from({ length: random.int(Math.min(of.max, Math.floor(600 / recordSize(of.fields)), 5) + 1) }, () =>
        record(names, of.fields),
      )
  }
}

const record = (names: Names, fields: Fields): AnyRecord =>
  Object.fromEntries(Object.entries(fields).map(([name, { of }]) => [name, likelyValue(names, name, of)]))

/** Optional attributes are rare: most of them request special behaviour. */
const OPTIONAL_SHARE = 0.12

const argumentsOf = (names: Names, cls: ObjectClass, methodName: string): AnyValues => {
  const { random } = names
  const { in: attributes } = cls.methods[methodName]
  const all = random.hits(0.1)
  const share = methodName === 'modify' || methodName === 'attach' || methodName === 'detach' ? 0.3 : OPTIONAL_SHARE
  return Object.fromEntries(
    Object.entries(attributes)
      .filter(([, { optional }]) => !optional || all || random.hits(share))
      .map(([name, { of }]) => [name, likelyValue(names, name, of)]),
  )
}

/** Next states of a queue pair, with the attributes that any type requires for them; those that a type lacks are left out. */
const steps: readonly (readonly [state: number, ...names: string[]])[] = [
  [1, 'pkeyIndex', 'port', 'accessFlags', 'qkey'],
  [2, 'address', 'pathMtu', 'destQpn', 'rqPsn', 'maxDestRdAtomic', 'minRnrTimer'],
  [3, 'timeout', 'retryCnt', 'rnrRetry', 'sqPsn', 'maxRdAtomic'],
]
const modifyQp = (names: Names, cls: ObjectClass): AnyValues => {
  const { random } = names
  if (random.hits(0.1)) return argumentsOf(names, cls, 'modify')
  const [state, ...needed] = random.pick(steps)
  const { in: attributes } = cls.methods.modify
  const own = needed.filter(name => attributes[name] !== undefined && !(name === 'accessFlags' && attributes.qkey))
  return { state, ...Object.fromEntries(own.map(name => [name, likelyValue(names, name, attributes[name].of)])) }
}

export const isCreate = (call: number): boolean => call === CREATE || call === CREATE_FD

const isThere = ({ handles, fds }: Names, cls: string): boolean =>
  [...handles.values()].includes(cls) || [...fds.values()].includes(cls)

/** Whether the call's own object exists, and an object for each required handle; descriptors are not checked. */
const isPossible = (names: Names, { name, identity, methods }: ObjectClass, methodName: string): boolean => {
  const { call, in: inputs } = methods[methodName]
  const isFound = isCreate(call) || identity === 'fixed' || isThere(names, name)
  return (
    isFound &&
    Object.values(inputs).every(({ of, optional }) => of.kind !== 'ref' || optional || isThere(names, of.class))
  )
}

/** A class and its method, favoring creation and possible calls. */
const choose = (names: Names): [ObjectClass, string] => {
  const { random, classes } = names
  for (let left = 5; ; left--) {
    const cls = random.pick(classes)
    const all = Object.keys(cls.methods)
    const creates = all.filter(name => isCreate(cls.methods[name].call))
    const methodName = creates.length > 0 && random.hits(0.4) ? creates[0] : random.pick(all)
    if (left === 0 || isPossible(names, cls, methodName)) return [cls, methodName]
  }
}

/** A call of any method; `fd`: on this descriptor. */
export const plausibleCall = (names: Names): Call & { readonly fd?: number } => {
  const { handles, fds } = names
  const [cls, methodName] = choose(names)
  const method = cls.methods[methodName]
  const isQp = cls.methods.modify !== undefined && cls.name.endsWith('_qp')
  const args = isQp && methodName === 'modify' ? modifyQp(names, cls) : argumentsOf(names, cls, methodName)
  const call = { class: cls, methodName, method, object: 0, args }
  if (cls.name === 'interface' && methodName === 'chain') return { ...call, args: anyChain(names) }
  if (isCreate(method.call)) return call
  if (cls.identity === 'handle') return { ...call, object: named(names, handles, cls.name) }
  if (cls.identity === 'fixed') return { ...call, object: cls.name === 'port' ? 1 : 0 }
  const fd = named(names, fds, cls.name)
  return fds.has(fd) ? { ...call, fd } : call
}

/** Entries of a chain whose later calls name objects of earlier ones. */
export const plausibleChain = (names: Names): Link[] => {
  const { random } = names
  const links: Link[] = []
  for (let left = 1 + random.int(6); left > 0; left--) {
    const call = plausibleCall({ ...names, classes: names.classes.filter(({ name }) => name !== 'interface') })
    const made = (cls: string): number[] =>
      [...links.keys()].filter(i => links[i].call.class.name === cls && isCreate(links[i].call.method.call))
    const refs: Record<string, number> = {}
    for (const [name, { of }] of Object.entries(call.method.in)) {
      const right = of.kind === 'ref' || of.kind === 'fd' ? made(of.class) : []
      if (right.length > 0 && call.args[name] !== undefined) refs[name] = random.pick(right)
    }
    const objects = isCreate(call.method.call) ? [] : made(call.class.name)
    links.push({ call, refs, ...(objects.length > 0 && { object: random.pick(objects) }) })
  }
  return links
}

const anyChain = (names: Names): AnyValues => ({
  entries: encodeChain(plausibleChain(names)),
  onError: names.random.int(2),
})
