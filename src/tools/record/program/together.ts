/*
 * Several recordings as one stream of program events, such as those of the hosts of a net: then both ends of a
 * connection are known. Ids, times, and the numbers of devices and contexts are made distinct. Numbers of queue pairs,
 * keys, handles and processes stay: they belong to a device, a context or a host.
 */

import type { ProgramProbes } from '../../../spec/check/probes.ts'
import type { ObjectName, ProgramConsumer, ProgramEvent } from '../../../spec/check/program-events.ts'
import type { RequestWatcher, WorkRequest } from '../../../spec/check/requests.ts'
import type { SessionEvent, SessionHeader } from '../../../spec/session-events.ts'
import { parseAddress } from '../../../transport/wire/address.ts'
import { eventTime } from '../../events/stream.ts'
import { SessionReplay } from './replay.ts'
import { isObjectName } from './values.ts'

/** Steps between the numbers of two recordings: more than one has. */
const IDS = 2 ** 40
const DEVICES = 2 ** 12
const CONTEXTS = 2 ** 26

type Consumer = ProgramConsumer & { readonly requests: RequestWatcher }
type Probes = ProgramProbes & { now(): number }

interface Place {
  readonly replay: SessionReplay
  readonly probes: Probes
}

/** Shifts the events of the recording at `place`, whose clock begins `microseconds` after that of the first. */
const createShift = (place: number, microseconds: number) => {
  const names = new Map<number, ObjectName>()
  const requests = new WeakMap<WorkRequest, WorkRequest>()
  const originals = new WeakMap<WorkRequest, WorkRequest>()
  // 0 is the id of no object, -1 the number of rdma_cm's device.
  const id = (own: number): number => (own === 0 ? 0 : own + place * IDS)
  const device = (own: number): number => (own < 0 ? own : own + place * DEVICES)
  const context = (own: number): number => own + place * CONTEXTS
  const time = (own: number): number => (microseconds === 0 ? own : eventTime(own + microseconds))
  const nameOf = (own: ObjectName): ObjectName => {
    const known = names.get(own.id) ?? { ...own, id: id(own.id) }
    names.set(own.id, known)
    return known
  }
  const request = (own: WorkRequest): WorkRequest => {
    const known = requests.get(own)
    if (known !== undefined) return known
    const shifted = { ...own, id: id(own.id), owner: id(own.owner), time: time(own.time) }
    requests.set(own, shifted)
    originals.set(shifted, own)
    return shifted
  }
  const event = (own: ProgramEvent): ProgramEvent => {
    const fields = own as unknown as Readonly<Record<string, unknown>>
    const changed: Record<string, unknown> = { ...fields }
    const shift = (by: (value: number) => number, ...of: readonly string[]): void => {
      for (const field of of) if (typeof fields[field] === 'number') changed[field] = by(fields[field])
    }
    shift(time, 'time', 'destroyedAt', 'until')
    shift(device, 'deviceNumber', 'peerDevice')
    shift(context, 'context')
    // Others have a name as `device`, and a kind as `object`.
    if (own.event === 'calling' || own.event === 'unmapped') shift(id, 'object')
    else shift(device, 'device')
    if (own.event === 'called') {
      if (own.object !== undefined) changed.object = nameOf(own.object)
      changed.args = Object.fromEntries(
        Object.entries(own.args).map(([name, value]) => [
          name,
          typeof value === 'object' && value !== null && isObjectName(value) ? nameOf(value) : value,
        ]),
      )
      if (own.method === 'destroy' && own.object !== undefined) names.delete(own.object.id)
    }
    if (own.event === 'contextEnds' && own.pendingSends !== undefined)
      changed.pendingSends = new Map([...own.pendingSends].map(([of, count]) => [id(of), count]))
    if (own.event === 'waits') {
      const { peerDevice, request: waiting } = own.wait
      changed.wait = {
        ...own.wait,
        ...(peerDevice !== undefined && { peerDevice: device(peerDevice) }),
        ...(waiting?.context !== undefined && { request: { ...waiting, context: context(waiting.context) } }),
      }
    }
    return changed as unknown as ProgramEvent
  }
  return {
    id,
    device,
    context,
    time,
    request,
    event,
    originalOf: (shifted: WorkRequest) => originals.get(shifted) ?? shifted,
  }
}
type Shift = ReturnType<typeof createShift>

/** `deviceWith`: the device of any recording with an address. */
const shiftedConsumer = (
  consumer: Consumer,
  { id, device, request, event }: Shift,
  deviceWith: (address: string) => number | undefined,
): Consumer => ({
  event(own) {
    const shifted = event(own)
    // The peer that its recorder did not know may be of another recording.
    const isPeerKnown = shifted.event !== 'failed' || shifted.peerDevice !== undefined || !shifted.failure.peer
    consumer.event(isPeerKnown ? shifted : { ...shifted, peerDevice: deviceWith(shifted.failure.peer!.address) })
  },
  accessed: (at, ...numbers) => consumer.accessed?.(device(at), ...numbers),
  requests: {
    posted: own => consumer.requests.posted(request(own)),
    ended: own => consumer.requests.ended(request(own)),
    completed: (own, { cq, qp, message, ...completion }) =>
      consumer.requests.completed(request(own), {
        ...completion,
        cq: id(cq),
        qp: id(qp),
        message: message && request(message),
      }),
    receiveLost: own => consumer.requests.receiveLost(request(own)),
    receiverNotReady: qp => consumer.requests.receiverNotReady(id(qp)),
    polled: (cq, count) => consumer.requests.polled(id(cq), count),
    queueReset: owner => consumer.requests.queueReset(id(owner)),
  },
})

export class ReplayTogether {
  readonly #places: Place[] = []
  readonly #shifts: readonly Shift[]
  #current = 0

  /** `createConsumer` makes the consumer with what it may ask. */
  constructor(headers: readonly SessionHeader[], createConsumer: (probes: Probes) => Consumer) {
    const [first] = headers
    this.#shifts = headers.map(({ origin }, place) => createShift(place, 1000 * (origin - first!.origin)))
    let consumer: Consumer | undefined
    const late: Consumer = {
      event: event => consumer?.event(event),
      accessed: (...numbers) => consumer?.accessed?.(...numbers),
      get requests() {
        return consumer!.requests
      },
    }
    headers.forEach((header, place) => {
      let probes: Probes | undefined
      const replay = new SessionReplay(header, own => {
        probes = own
        return shiftedConsumer(late, this.#shifts[place]!, address => {
          const gid = parseAddress(address)
          return gid && this.#deviceWithGid(gid)
        })
      })
      this.#places.push({ replay, probes: probes! })
    })
    consumer = createConsumer(this.#probes())
  }

  get lost(): number {
    return this.#places.reduce((sum, { replay }) => sum + replay.lost, 0)
  }

  get damaged(): number {
    return this.#places.reduce((sum, { replay }) => sum + replay.damaged, 0)
  }

  /** The time of an event of the recording at `place`, on the clock of the first. */
  timeOf(place: number, event: SessionEvent): number {
    return this.#shifts[place]!.time(event.time)
  }

  /** Takes the next event of the recording at `place`; of all recordings, in the order of `timeOf`. */
  take(place: number, event: SessionEvent): void {
    if (place !== this.#current) this.#places[this.#current]!.replay.finish()
    this.#current = place
    this.#places[place]!.replay.take(event)
  }

  /** The last events were taken. */
  finish(): void {
    for (const [place, { replay }] of this.#places.entries()) {
      this.#current = place
      replay.finish()
    }
  }

  #deviceWithGid(gid: Uint8Array): number | undefined {
    for (const [place, { probes }] of this.#places.entries()) {
      const device = probes.deviceWithGid(gid)
      if (device !== undefined) return this.#shifts[place]!.device(device)
    }
    return undefined
  }

  #probes(): Probes {
    const at = (place: number): { readonly probes: Probes; readonly shift: Shift } => ({
      probes: (this.#places[place] ?? this.#places[0]!).probes,
      shift: this.#shifts[place] ?? this.#shifts[0]!,
    })
    const ofDevice = (device: number) => ({
      ...at(device < 0 ? 0 : Math.floor(device / DEVICES)),
      own: device < 0 ? device : device % DEVICES,
    })
    const ofContext = (context: number) => ({ ...at(Math.floor(context / CONTEXTS)), own: context % CONTEXTS })
    const current = () => at(this.#current)
    const all: Required<Probes> = {
      now: () => current().shift.time(current().probes.now()),
      deviceName(device) {
        const { probes, own } = ofDevice(device)
        return probes.deviceName(own)
      },
      deviceWithGid: gid => this.#deviceWithGid(gid),
      postStack(context, ...post) {
        const { probes, own } = ofContext(context)
        return probes.postStack(own, ...post)
      },
      digest(device, request, isWhole) {
        const { probes, own, shift } = ofDevice(device)
        return probes.digest?.(own, shift.originalOf(request), isWhole)
      },
      rangeHash(device, ...range) {
        const { probes, own } = ofDevice(device)
        return probes.rangeHash?.(own, ...range)
      },
      postHash(context, request) {
        const { probes, own, shift } = ofContext(context)
        return probes.postHash?.(own, shift.originalOf(request))
      },
      unmapStack: (...asked) => current().probes.unmapStack?.(...asked),
      isCopiedByFork: (...asked) => current().probes.isCopiedByFork?.(...asked),
      privateFile: (...asked) => current().probes.privateFile?.(...asked),
      hasMember: group => {
        const answers = this.#places.map(({ probes }) => probes.hasMember?.(group))
        if (answers.includes(true)) return true
        return answers.includes(undefined) ? undefined : false
      },
      whyLost(device, ...datagram) {
        const { probes, own } = ofDevice(device)
        return probes.whyLost?.(own, ...datagram)
      },
      routerHazard(device, ...path) {
        const { probes, own } = ofDevice(device)
        return probes.routerHazard?.(own, ...path)
      },
      driverName(device) {
        const { probes, own } = ofDevice(device)
        return probes.driverName?.(own)
      },
      hasUnchecked(device) {
        const { probes, own } = ofDevice(device)
        return probes.hasUnchecked?.(own) ?? false
      },
      lossTo: (qpns, time) =>
        this.#places.map(({ probes }) => probes.lossTo?.(qpns, time)).find(answer => answer !== undefined),
      unreadEvents(context, channel) {
        const { probes, own } = ofContext(context)
        return probes.unreadEvents?.(own, channel)
      },
      lockLimit: program => current().probes.lockLimit?.(program) ?? Number.POSITIVE_INFINITY,
      memoryOf(device, key) {
        const { probes, own } = ofDevice(device)
        const memory = probes.memoryOf?.(own, key)
        // Spaces are numbered by each recorder.
        return memory && { ...memory, space: spaceOf(device, memory.space) }
      },
      logStack: (...asked) => {
        for (const { probes } of this.#places) {
          const stack = probes.logStack?.(...asked) ?? []
          if (stack.length > 0) return stack
        }
        return []
      },
      readLog: () => {
        const logs = this.#places.map(({ probes }, place) => ({ log: probes.readLog?.(), shift: this.#shifts[place]! }))
        return {
          entries: logs.flatMap(({ log, shift }) =>
            (log?.entries ?? []).map(entry => ({
              ...entry,
              time: shift.time(entry.time),
              acquired: shift.time(entry.acquired),
              context: shift.context(entry.context),
            })),
          ),
          lost: logs.flatMap(({ log, shift }) => (log?.lost ?? []).map(shift.context)),
          time: Math.max(...logs.map(({ log, shift }) => shift.time(log?.time ?? 0))),
        }
      },
    }
    const has = (name: string): boolean => this.#places.some(({ probes }) => name in probes)
    return Object.fromEntries(Object.entries(all).filter(([name]) => has(name))) as unknown as Probes
  }
}

/** Address spaces of several recordings. */
const spaceOf = (device: number, space: number): number => Math.floor(Math.max(device, 0) / DEVICES) * IDS + space
