/*
 * Lent memory for `userdma trace`: what programs say of their memory, and what peers access there, as it happens.
 */
import type { Core } from '../../core/model.ts'
import type { ProgramConsumer, ProgramEvent } from '../../spec/check/program-events.ts'
import { TWO_32 } from '../../spec/memory.ts'
import type { LendRecord } from '../../spec/records.ts'
import type { FailureReports } from '../failures.ts'

type Said = ProgramEvent<'lent' | 'takenBack' | 'unchecked' | 'named' | 'advertised'>

const NAMES: ReadonlySet<string> = new Set(['lent', 'takenBack', 'unchecked', 'named', 'advertised'])
const isSaid = (event: ProgramEvent): event is Said => NAMES.has(event.event)

interface Bytes {
  readonly pid: number | undefined
  readonly start: number
}

/**
 * `lentBytes`: the bytes of a region from the address of a request on, if their program tells what it lends, or they
 * are lent. `tag`: selects programs, empty: all.
 */
export const createLendTrace = (
  core: Core,
  lentBytes: (device: number, rkey: number, address: number, length: number) => Bytes | undefined,
  ownerOf: FailureReports['ownerOf'],
  tag: string,
  post: (record: LendRecord) => void,
): ProgramConsumer => {
  /** The session of a process; undefined: it has none. */
  const ownerWith = (pid: number | undefined): ReturnType<typeof ownerOf> => {
    for (const { contexts } of core.devices.values())
      for (const context of contexts) {
        const owner = ownerOf(context)
        if (owner?.pid === pid) return owner
      }
    return undefined
  }
  const tell = (pid: number | undefined, lent: LendRecord['lent']): void => {
    const owner = ownerWith(pid)
    if (tag !== '' && owner?.tag !== tag) return
    const time = performance.timeOrigin + core.now() / 1000
    post({ time, pid: pid ?? 0, command: owner?.command ?? '', lent })
  }
  return {
    event(event) {
      if (!isSaid(event)) return
      // that of the request, which is in the trace of a recording
      if (event.event === 'advertised') {
        const { message: _, to: __, ...told } = event
        tell(event.pid, told)
      } else tell(event.pid, { ...event })
    },
    accessed(device, rkey, high, low, length, access, qpn) {
      const bytes = lentBytes(device, rkey, (high >>> 0) * TWO_32 + (low >>> 0), length)
      if (bytes !== undefined)
        tell(bytes.pid, { event: 'accessed', device, rkey, start: bytes.start, length, access, qpn })
    },
  }
}
