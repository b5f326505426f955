/*
 * Program events of recordings of depth `plain`, of observed programs and of older releases: made of their objects,
 * calls and failures. What the preload library has seen, waits, hashes of memory and event logs are not in such files.
 */
import { bytesOfHex } from '../../../base/text.ts'
import { type CauseName, causes, requestName } from '../../../spec/check/causes.ts'
import type { Failure, FailureJson } from '../../../spec/check/failures.ts'
import type { ObjectName, ProgramEvent } from '../../../spec/check/program-events.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { classes } from '../../../spec/classes.ts'
import { AsyncEventType } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import { asReason, reasonFrom } from '../../../spec/reason.ts'
import { CM_NAME } from '../../../spec/session.ts'
import type { CallEvent, FailureEvent, ObjectEvent } from '../../../spec/session-events.ts'
import { WcStatus, WrOpcode } from '../../../spec/work.ts'

/** Digits of a GID in hexadecimal. */
const GID = /^[0-9a-f]{32}$/
const NUMBER = /^0x[0-9a-f]+$/

/** A value of `ObjectDetails.values` as calls have it: 64-bit numbers and GIDs are text there. */
const callValue = (value: unknown): unknown => {
  if (typeof value === 'string') {
    if (NUMBER.test(value)) return BigInt(value)
    return GID.test(value) ? bytesOfHex(value) : value
  }
  if (Array.isArray(value)) return value.map(callValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, callValue(field)]))
}

const numberIn = (values: Readonly<Record<string, number>>, name: string | undefined): number | undefined =>
  name === undefined ? undefined : values[name]

const opcodes = Object.fromEntries(Object.values(WrOpcode.values).map(opcode => [requestName(opcode), opcode]))
const isCause = (name: string): name is CauseName => Object.hasOwn(causes, name)

/** The failure that `failureJson` has made JSON; undefined: of a later release. */
const failureOf = ({ cause, args, opcode, wrId, status, errno, event, ...json }: FailureJson): Failure | undefined => {
  const { vendorErr: _, text: _text, isNote: _isNote, ...rest } = json
  if (!isCause(cause)) return undefined
  const numbers = {
    opcode: numberIn(opcodes, opcode),
    status: numberIn(WcStatus.values, status),
    errno: numberIn(Errno, errno),
    event: numberIn(AsyncEventType.values, event),
  }
  return {
    ...rest,
    ...(Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== undefined)) as Partial<Failure>),
    ...(wrId !== undefined && { wrId: BigInt(wrId) }),
    cause: { id: cause, args: callValue(args) as Record<string, number | bigint | string> },
  }
}

/** The class and method of a call by their numbers. */
const methodOf = (classId: number, call: number): { readonly class: string; readonly method: string } | undefined => {
  const found = classes.find(({ id }) => id === classId)
  const method = found && Object.entries(found.methods).find(([, declared]) => declared.call === call)?.[0]
  return found && method !== undefined ? { class: found.name, method } : undefined
}

type Timed<E> = E & { readonly time: number }

export class PlainEvents {
  /** Only objects that were there before the recording: the file has the events of the others. */
  readonly #onlyExisting: boolean
  readonly #names = new Map<number, ObjectName>()
  readonly #contexts = new Map<number, { readonly context: number; readonly device: number }>()
  readonly #devices = new Map<number, string>()
  /** By pid and device name: the context that the process has opened last. */
  readonly #ofProcess = new Map<string, number>()

  constructor(onlyExisting: boolean) {
    this.#onlyExisting = onlyExisting
  }

  device(index: number, name: string): void {
    this.#devices.set(index, name)
  }

  deviceName(index: number): string {
    return index < 0 ? CM_NAME : (this.#devices.get(index) ?? '')
  }

  /** The context of an object; 0: unknown. */
  contextOf(object: number): number {
    return this.#contexts.get(object)?.context ?? 0
  }

  #numberOf(name: string): number {
    for (const [index, known] of this.#devices) if (known === name) return index
    return -1
  }

  object(event: Timed<ObjectEvent>): ProgramEvent | undefined {
    const {
      object: id,
      change,
      class: name,
      handle,
      device,
      context,
      program,
      method,
      why,
      stack,
      details,
      time,
    } = event
    this.#contexts.set(id, { context, device })
    if (program !== undefined) this.#ofProcess.set(`${program.pid} ${this.deviceName(device)}`, context)
    const object = this.#names.get(id) ?? { id, handle, class: { name } }
    if (change === 'destroyed') {
      this.#names.delete(id)
      this.#contexts.delete(id)
    } else this.#names.set(id, object)
    if (this.#onlyExisting && change !== 'exists') return undefined
    const values = callValue(details.values ?? {}) as Record<string, unknown>
    for (const used of details.uses ?? []) {
      const other = this.#names.get(used)
      if (other === undefined) continue
      // The values have handles; which attribute names which class is in its name: `pd`, `sendCq`.
      for (const [attribute, value] of Object.entries(values))
        if (
          value === other.handle &&
          attribute.toLowerCase().endsWith(other.class.name.replace('xrc_', '').replace('comp_', ''))
        )
          values[attribute] = other
    }
    return {
      event: 'called',
      time,
      device: this.deviceName(device),
      deviceNumber: device,
      context,
      program,
      class: name,
      method: change === 'exists' ? 'create' : method,
      object,
      args: values,
      out:
        change === 'exists' && values.qpNum === undefined && event.number !== 0
          ? { ...values, ...numbersOf(event) }
          : values,
      why: why === '' ? 'call' : (why as 'call'),
      stack,
    }
  }

  /** A refused call. */
  call({ call: record, object: id, stack, time }: Timed<CallEvent>): ProgramEvent | undefined {
    const { pid, command, device, ret, attempt } = record
    const reason = asReason(reasonFrom(record.reason) ?? '')
    if (this.#onlyExisting || ret >= 0) return undefined
    const deviceNumber = this.#contexts.get(id)?.device ?? this.#numberOf(device)
    const context = this.#contexts.get(id)?.context ?? this.#ofProcess.get(`${pid} ${device}`) ?? 0
    const at = { time, device, deviceNumber, context, program: { pid, command }, stack }
    if (attempt !== undefined) return { event: 'refusedAttempt', ...at, attempt, errno: -ret, reason }
    const named = record.call && methodOf(record.call.classId, record.call.call)
    if (named === undefined || reason.code === 'injected') return undefined
    const object = this.#names.get(id)
    return {
      event: 'called',
      ...at,
      ...named,
      object,
      args: {},
      out: {},
      refused: { errno: -ret, reason },
      why: 'call',
    }
  }

  failure(
    { object: id, failure: { pid, command, device, failure: json }, time }: Timed<FailureEvent>,
    deviceWith: (address: string) => number | undefined,
  ): ProgramEvent | undefined {
    const failure = this.#onlyExisting ? undefined : failureOf(json)
    const deviceNumber = this.#numberOf(device)
    const context = this.#contexts.get(id)?.context ?? this.#ofProcess.get(`${pid} ${device}`)
    // As live: only the failures of programs that are checked.
    if (failure === undefined || context === undefined || pid === 0) return undefined
    return {
      event: 'failed',
      time,
      deviceNumber,
      context,
      program: { pid, command },
      failure,
      peerDevice: failure.peer && deviceWith(failure.peer.address),
    }
  }
}

/** The number of an object as its creation has returned it. */
const numbersOf = ({ class: name, number }: ObjectEvent): Record<string, number> => {
  if (name === 'mr') return { lkey: number }
  if (name === 'mw') return { rkey: number }
  return isQueuePairClass(name) ? { qpNum: number } : {}
}
