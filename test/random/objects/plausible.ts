/*
 * Draws plausible calls of every class and method of a device: values within their declared limits, and handles and
 * descriptors of existing objects.
 */
import { CtxInterface } from '../../../src/spec/drivers/ctx.ts'
import { AccessFlags, Mtu, QpState } from '../../../src/spec/enums.ts'
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
} from '../../../src/spec/schema/schema.ts'
import type { Call } from '../../../src/uapi/call.ts'
import { type ChainLink, encodeChain } from '../../../src/uapi/object/chain.ts'
import type { RandomSource } from '../model/random.ts'

/** What the client of the calls has: arguments are drawn from its objects and memory. */
export interface ClientState {
  readonly random: RandomSource
  /** Classes of the device. */
  readonly classes: readonly ObjectClass[]
  /** Class by live handle. */
  readonly handles: ReadonlyMap<number, string>
  /** Class by descriptor number. */
  readonly fds: ReadonlyMap<number, string>
  /** The memory that the client may register. */
  readonly address: bigint
  readonly gid: Uint8Array
}

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND } = AccessFlags.values
const REMOTE_READ_WRITE = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ
const ALL_REMOTE = REMOTE_READ_WRITE | REMOTE_ATOMIC

/** Plausible values by the name of an attribute or field. Other numbers are small. */
const likely: Readonly<Record<string, (client: ClientState) => AnyValue>> = {
  start: ({ address }) => address,
  iova: ({ address }) => address,
  length: ({ random }) => BigInt(random.pick([1, 64, 4096])),
  dgid: ({ gid }) => gid,
  // a multicast GID
  gid: ({ random }) => new Uint8Array(16).fill(random.int(3), 1).fill(0xff, 0, 1),
  sgidIndex: () => 1,
  isGlobal: () => 1,
  port: () => 1,
  access: ({ random }) => random.pick([LOCAL_WRITE, REMOTE_READ_WRITE, ALL_REMOTE, ALL_REMOTE | MW_BIND]),
  accessFlags: ({ random }) => random.pick([LOCAL_WRITE, REMOTE_READ_WRITE, ALL_REMOTE]),
  compVector: ({ random }) => random.int(2),
  pathMtu: () => Mtu.values.MTU_1024,
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

/** A handle or descriptor: usually of the class, sometimes of another class, sometimes of no object. */
const pickObject = ({ random }: ClientState, classByNumber: ReadonlyMap<number, string>, cls: string): number => {
  const ofClass = [...classByNumber].filter(([, name]) => name === cls)
  if (ofClass.length > 0 && random.hits(0.9)) return random.pick(ofClass)[0]
  return classByNumber.size > 0 && random.hits(0.5) ? random.pick([...classByNumber.keys()]) : random.int(100)
}

/** Limits of a drawn list. */
const LIST_BYTES = 600
const LIST_RECORDS = 5

/** A value for an attribute or field of this name. */
export const likelyValue = (client: ClientState, name: string, type: Kind): AnyValue => {
  const { random } = client
  const hint = random.hits(0.95) ? likely[name] : undefined
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32': {
      const min = type.min ?? 0
      const max = type.max ?? highest[type.kind]
      const wanted = hint?.(client) ?? min + random.int(random.hits(0.95) ? 4 : 0x1_0000_0000)
      return Math.min(Math.max(Number(wanted), min), max)
    }
    case 'u64':
      return (hint?.(client) as bigint | undefined) ?? BigInt(random.u32()) << (random.hits(0.5) ? 32n : 0n)
    case 'enum':
      return (hint?.(client) as number | undefined) ?? random.pick(Object.values(type.enumeration.values))
    case 'flags':
      return (
        (hint?.(client) as number | undefined) ??
        (random.hits(0.5) ? 0 : random.pick(Object.values(type.enumeration.values)))
      )
    case 'ref':
      return pickObject(client, client.handles, type.class)
    case 'fd':
      return pickObject(client, client.fds, type.class)
    case 'bytes': {
      const bytes = new Uint8Array(type.size)
      random.fill(bytes)
      return (hint?.(client) as Uint8Array | undefined) ?? bytes
    }
    case 'blob': {
      const bytes = new Uint8Array(random.int(Math.min(type.max, 64)))
      random.fill(bytes)
      return (hint?.(client) as Uint8Array | undefined) ?? bytes
    }
    case 'record':
      return record(client, type.fields)
    case 'list':
      return Array.from(
        { length: random.int(Math.min(type.max, Math.floor(LIST_BYTES / recordSize(type.fields)), LIST_RECORDS) + 1) },
        () => record(client, type.fields),
      )
  }
}

const record = (client: ClientState, fields: Fields): AnyRecord =>
  Object.fromEntries(Object.entries(fields).map(([name, { type }]) => [name, likelyValue(client, name, type)]))

/** Share of optional attributes that are passed. Most of them request special behaviour. */
const OPTIONAL_SHARE = 0.12
/** The same for methods whose optional attributes name what is changed, attached or detached. */
const SUBJECT_SHARE = 0.3
const SUBJECT_METHODS = ['modify', 'attach', 'detach']

const argumentsOf = (client: ClientState, cls: ObjectClass, methodName: string): AnyValues => {
  const { random } = client
  const { in: attributes } = cls.methods[methodName]
  const hasAllOptional = random.hits(0.1)
  const share = SUBJECT_METHODS.includes(methodName) ? SUBJECT_SHARE : OPTIONAL_SHARE
  return Object.fromEntries(
    Object.entries(attributes)
      .filter(([, { optional }]) => !optional || hasAllOptional || random.hits(share))
      .map(([name, { type }]) => [name, likelyValue(client, name, type)]),
  )
}

/** States of a queue pair, each with the attributes that some queue pair type requires for the transition. */
const transitions: readonly (readonly [state: number, ...attributes: string[]])[] = [
  [QpState.values.INIT, 'pkeyIndex', 'port', 'accessFlags', 'qkey'],
  [QpState.values.RTR, 'address', 'pathMtu', 'destQpn', 'rqPsn', 'maxDestRdAtomic', 'minRnrTimer'],
  [QpState.values.RTS, 'timeout', 'retryCnt', 'rnrRetry', 'sqPsn', 'maxRdAtomic'],
]
const modifyQp = (client: ClientState, cls: ObjectClass): AnyValues => {
  const { random } = client
  if (random.hits(0.1)) return argumentsOf(client, cls, 'modify')
  const [state, ...needed] = random.pick(transitions)
  const { in: attributes } = cls.methods.modify
  const declared = needed.filter(name => attributes[name] !== undefined)
  return {
    state,
    ...Object.fromEntries(declared.map(name => [name, likelyValue(client, name, attributes[name].type)])),
  }
}

export const isCreate = (call: number): boolean => call === CREATE || call === CREATE_FD

const hasObjectOf = ({ handles, fds }: ClientState, cls: string): boolean =>
  [...handles.values()].includes(cls) || [...fds.values()].includes(cls)

/** Whether the call's target exists, and an object for each required handle; descriptors are not checked. */
const isPossible = (client: ClientState, { name, identity, methods }: ObjectClass, methodName: string): boolean => {
  const { call, in: inputs } = methods[methodName]
  const hasTarget = isCreate(call) || identity === 'fixed' || hasObjectOf(client, name)
  return (
    hasTarget &&
    Object.values(inputs).every(
      ({ type, optional }) => type.kind !== 'ref' || optional || hasObjectOf(client, type.class),
    )
  )
}

/** A class and the name of its method; creation and possible calls are more likely. */
const choose = (client: ClientState): [ObjectClass, string] => {
  const { random, classes } = client
  for (let triesLeft = 5; ; triesLeft--) {
    const cls = random.pick(classes)
    const methodNames = Object.keys(cls.methods)
    const creates = methodNames.filter(name => isCreate(cls.methods[name].call))
    const methodName = creates.length > 0 && random.hits(0.4) ? creates[0] : random.pick(methodNames)
    if (triesLeft === 0 || isPossible(client, cls, methodName)) return [cls, methodName]
  }
}

/** A call of any method; `fd` is present if the call is made on a descriptor. */
export const plausibleCall = (client: ClientState): Call & { readonly fd?: number } => {
  const { handles, fds } = client
  const [cls, methodName] = choose(client)
  const method = cls.methods[methodName]
  const isQp = cls.methods.modify !== undefined && cls.name.endsWith('_qp')
  const args = isQp && methodName === 'modify' ? modifyQp(client, cls) : argumentsOf(client, cls, methodName)
  const call = { class: cls, methodName, method, object: 0, args }
  if (cls.name === 'interface' && methodName === 'chain') return { ...call, args: chainArguments(client) }
  if (isCreate(method.call)) return call
  if (cls.identity === 'handle') return { ...call, object: pickObject(client, handles, cls.name) }
  if (cls.identity === 'fixed') return { ...call, object: cls.name === 'port' ? 1 : 0 }
  const fd = pickObject(client, fds, cls.name)
  return fds.has(fd) ? { ...call, fd } : call
}

/** Entries of a chain: later entries name objects that earlier entries create. */
export const plausibleChain = (client: ClientState): ChainLink[] => {
  const { random } = client
  const links: ChainLink[] = []
  for (let calls = 1 + random.int(6); calls > 0; calls--) {
    const call = plausibleCall({ ...client, classes: client.classes.filter(({ name }) => name !== 'interface') })
    /** Indexes of earlier entries that create an object of the class. */
    const creatorsOf = (cls: string): number[] =>
      [...links.keys()].filter(i => links[i].call.class.name === cls && isCreate(links[i].call.method.call))
    const refs: Record<string, number> = {}
    for (const [name, { type }] of Object.entries(call.method.in)) {
      const creators = type.kind === 'ref' || type.kind === 'fd' ? creatorsOf(type.class) : []
      if (creators.length > 0 && call.args[name] !== undefined) refs[name] = random.pick(creators)
    }
    const targets = isCreate(call.method.call) ? [] : creatorsOf(call.class.name)
    links.push({ call, refs, ...(targets.length > 0 && { object: random.pick(targets) }) })
  }
  return links
}

const chainArguments = (client: ClientState): AnyValues => ({
  entries: encodeChain(plausibleChain(client)),
  onError: client.random.int(2),
})
