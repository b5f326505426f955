/*
 * Findings of the sanitizer of a program: ThreadSanitizer's report of a race with a device, whose threads have the
 * names of its queues (shim/sanitizers/tsan.c), and our sentence before a report of AddressSanitizer or memcheck
 * (shim/sanitizers/sanitizers.c).
 */
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { moment } from '../objects.ts'
import { POSTED } from '../reporting.ts'

/** An access in a report: `who` as `main thread` or `thread T2`. */
interface ReportedAccess {
  readonly kind: string
  readonly size: number
  readonly address: string
  readonly who: string
  readonly stack: readonly string[]
}

const ACCESS =
  /^ {2}(?:Previous )?((?:atomic )?(?:read|write)) of size (\d+) at (0x[0-9a-f]+) by (main thread|thread T\d+)/i
const FRAME = /^ {4}#\d+ (.+?) (?:<null>|(\S+?):(\d+)(?::\d+)?)(?: \(|$)/
const DEVICE = /^ {2}(Thread T\d+) 'device [^']*?(?:(sends|receives|the peer) of QP (0x[0-9a-f]+))?'/
/** Frames of the tool itself are no program's: an access of a device to the memory of a peer has none other. */
const OWN = /^userdma_/

const accessesOf = (lines: readonly string[]): ReportedAccess[] => {
  const accesses: (ReportedAccess & { readonly stack: string[] })[] = []
  let isInAccess = false
  for (const line of lines) {
    const [, kind, size, address, who] = ACCESS.exec(line) ?? []
    const [, name, file, number] = FRAME.exec(line) ?? []
    if (kind !== undefined) accesses.push({ kind, size: Number(size), address: address!, who: who!, stack: [] })
    else if (name !== undefined && isInAccess && !OWN.test(name))
      accesses.at(-1)!.stack.push(file === undefined ? name : `${name} (${file}:${number})`)
    isInAccess = kind !== undefined || (isInAccess && name !== undefined)
  }
  return accesses
}

const verbOf = ({ kind, stack }: ReportedAccess): string =>
  /^(?:free|realloc|munmap|operator delete)/.test(stack[0] ?? '') ? 'frees' : /write/i.test(kind) ? 'writes' : 'reads'

/** Undefined: it is not about a device. */
const raceOf = (text: string) => {
  // A line may have come in parts.
  const lines = text.replaceAll(/\n(?=[:'(]| [^ ])/g, '').split('\n')
  const devices = lines.flatMap(line => {
    const [, thread, role, qpn] = DEVICE.exec(line) ?? []
    return thread === undefined ? [] : [{ thread: thread.toLowerCase(), role, qpn: Number(qpn) }]
  })
  const accesses = accessesOf(lines)
  const deviceOf = (access: ReportedAccess) => devices.find(({ thread }) => thread === access.who.toLowerCase())
  const own = accesses.find(access => deviceOf(access) === undefined)
  const other = accesses.find(access => deviceOf(access) !== undefined)
  return own && other && { own, other, ...deviceOf(other)! }
}

const SENTENCE =
  /^userdma: \S+ (reads|writes) (\d+) bytes at (0x[0-9a-f]+) for a (request|peer) of (QP|SRQ) (0x[0-9a-f]+); from (0x[0-9a-f]+) on/

/** Mistakes that are known to be told already: memcheck tells of a send at its post and at its completion. */
const MAX_KNOWN = 1024

export const createSanitizerDetector = (services: DetectorServices): Detector => {
  const known = new Set<string>()

  const tellRace = (event: ProgramEvent<'told'>): void => {
    const race = raceOf(event.text)
    const owner = race && services.objects.qpOfProgram(event.program, race.qpn)
    if (race === undefined || owner === undefined) return
    const { own, other, role } = race
    const { name } = owner
    const isPeer = role === 'the peer'
    const bytes = `${own.size === 1 ? '1 byte' : `${own.size} bytes`} at ${own.address}`
    const uses = `${verbOf(own)} ${bytes}, which ${isPeer ? `the peer of ${name}` : name} ${verbOf(other)}`
    services.report(
      isPeer ? 'unordered-access' : 'touched-in-flight',
      services.occurrenceAt(owner, own.stack, 'used'),
      {
        text: `${own.who} ${uses}: ${isPeer ? 'nothing orders the two' : 'its completion was not polled before'}`,
        ...(other.stack.length > 0 && {
          moments: [moment(role === 'receives' ? 'polled' : POSTED.action, event.time, other.stack)],
        }),
        objects: [owner],
      },
    )
  }

  const tellForeign = (event: ProgramEvent<'told'>): void => {
    const [, verb, length, address, of, queue, number, from] = SENTENCE.exec(event.text) ?? []
    const { objects } = services
    const owner =
      queue === 'QP'
        ? objects.qpOfProgram(event.program, Number(number))
        : objects.existingOf(event.program, ['srq'], Number(number))
    const mistake = `${owner?.id} ${verb} ${from}`
    if (verb === undefined || owner === undefined || known.has(mistake)) return
    if (known.size < MAX_KNOWN) known.add(mistake)
    services.report('outside-objects', services.occurrenceAt(owner, event.stack, 'used'), {
      text: `${of === 'peer' ? `the peer of ${owner.name}` : owner.name} ${verb} ${length} bytes at ${address}: from ${from} on they are freed, beyond an object, or of a function that has returned`,
      objects: [owner],
    })
  }

  return {
    on: {
      told(event) {
        tellRace(event)
        tellForeign(event)
      },
    },
  }
}
