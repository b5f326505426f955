/*
 * Findings of races, with the stacks of both posts.
 */
import { requestName } from '../../../spec/check/causes.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { WrOpcode } from '../../../spec/work.ts'
import type { CheckerSources, DetectorServices } from '../detector.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import { POSTED } from '../reporting.ts'
import type { BenignRaces } from './benign.ts'
import type { Posted } from './feed.ts'
import type { Race, Request } from './races.ts'
import type { KnownRegion } from './ranges.ts'
import { type Access, AccessKind } from './shadow.ts'

const { ATOMIC_FETCH_AND_ADD } = WrOpcode.values

/** By AccessKind. */
const accessWords: Readonly<Record<number, string>> = {
  [AccessKind.SOURCE]: 'reads',
  [AccessKind.RESULT]: 'writes',
  [AccessKind.READ]: 'reads',
  [AccessKind.WRITE]: 'writes',
  [AccessKind.ATOMIC]: 'changes',
}

/** Why the two accesses are a race. */
const reasons: Readonly<Record<Race<Posted>['id'], string>> = {
  race: 'nothing orders them',
  'read-then-write-unfenced': 'the second has no fence, and the first was not known to be over',
  'atomic-mixed-with-write': 'one is atomic, the other is not, and nothing orders them',
  'buffer-reused': 'the first was not known to be over',
  'counter-shared': 'each is behind a WRITE of its queue, and the value does not say which of these has landed',
}

const nameOf = ({ opcode }: WorkRequest): string => (opcode < 0 ? 'receive' : requestName(opcode))

const objectOf = ({ range: { region } }: Access<Request<Posted>>): KnownObject | undefined =>
  (region as KnownRegion).object

/** Returns what reports a race, unless the program has said that it is benign. */
export const createRaceReport = (
  services: DetectorServices,
  benign: BenignRaces,
  logStack: NonNullable<CheckerSources['logStack']>,
): ((race: Race<Posted>) => void) => {
  const ownerOf = ({ info }: Request<Posted>): KnownObject | undefined => services.objects.find(info.request.owner)
  const stackOf = ({ info: { process, stack } }: Request<Posted>): Stack => logStack(process, stack)

  const accessText = (access: Access<Request<Posted>>): string => {
    const {
      request,
      range: { start, end, kind },
    } = access
    const owner = ownerOf(request)
    const { program } = objectOf(access) ?? {}
    const memory = program === undefined ? '' : ` of process ${program.pid} (${program.command})`
    const subject = `${nameOf(request.info.request)} of ${owner?.nameWithProgram ?? 'a queue pair that is gone'}`
    return `${subject}, ${request.info.request.numbered ?? 'wr_id'} ${request.info.request.wrId}, ${accessWords[kind]} ${end - start} bytes at ${hex(start)}${memory}`
  }

  return ({ id, isProven, first, second, start, end }) => {
    const [earlier, later] = [first.request, second.request]
    const owner = ownerOf(later)
    const program = objectOf(second)?.program
    const isCounter = id === 'counter-shared'
    if (isCounter && [earlier, later].some(({ info }) => info.request.opcode !== ATOMIC_FETCH_AND_ADD)) return
    if (owner === undefined || (program !== undefined && benign.allows(program.pid, start, end))) return
    const names = `${nameOf(later.info.request)} of ${owner.name} and ${nameOf(earlier.info.request)} of ${ownerOf(earlier)?.name ?? 'a queue pair that is gone'}`
    services.report(
      id,
      {
        ...services.occurrenceAt(owner, stackOf(later)),
        ...POSTED,
        action: `posted the ${nameOf(later.info.request)}`,
      },
      {
        text: `${names} access the same ${end - start} bytes: ${reasons[id]}`,
        ...(!isProven && { severity: 'warning' as const }),
        details: [
          `first:  ${accessText(first)}`,
          `second: ${accessText(second)}`,
          isProven
            ? 'one thread posted both and did not wait between, and no thread had polled the completion of the first'
            : 'the first may have been over, but nothing that userdma sees says so to the thread that posted the second',
        ],
        moments: [moment(`posted the ${nameOf(earlier.info.request)}`, earlier.postTime, stackOf(earlier))],
        objects: [owner, ownerOf(earlier), objectOf(second), objectOf(first)],
      },
    )
  }
}
