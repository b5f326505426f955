/*
 * Tells torment (kind `late`) when the owner of lent bytes uses them otherwise. The checker knows what is lent. Nothing
 * is done while torment watches no bytes.
 */
import type { LentWatch } from '../../../core/memory/region-table.ts'
import type { KeyedMemory } from '../../../spec/check/probes.ts'
import type { ProgramConsumer, ProgramEvent } from '../../../spec/check/program-events.ts'
import type { RequestWatcher, WorkRequest } from '../../../spec/check/requests.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { PostQueue } from '../../../spec/session.ts'
import { returnsData } from '../../../spec/work.ts'
import type { Checker } from '../../check/checker.ts'
import type { Lends, LentRange } from '../../check/lends/lends.ts'
import { ConsumerRank, type ProgramStream } from '../../events/stream.ts'

/** Bytes for which a request waits. */
interface Watched {
  readonly range: LentRange
  readonly device: number
  readonly qpn: number
  readonly isRead: boolean
  /** As in `KeyedMemory`. */
  readonly space: number | undefined
  readonly use: () => void
}

interface Sources {
  readonly stream: ProgramStream
  readonly checker: Checker
  readonly lends: Lends
  readonly readLends: (() => void) | undefined
  readonly memoryOf: (device: number, key: number) => KeyedMemory | undefined
  /** Tells of the requests of all devices until the returned function is called. */
  readonly watchPosts: (watcherOf: (device: number) => RequestWatcher) => () => void
}

const overlaps = (a: { readonly start: number; readonly end: number }, start: number, end: number): boolean =>
  a.start < end && start < a.end

const ignore = (): void => {}

/** Returns what a device gets, by its number. */
export const createLentWatch = ({
  stream,
  checker,
  lends,
  readLends,
  memoryOf,
  watchPosts,
}: Sources): ((device: number) => LentWatch) => {
  const watched = new Set<Watched>()
  let stop: (() => void) | undefined

  /** Those for which `isMeant` is true go on. */
  const use = (isMeant: (one: Watched) => boolean): void => {
    for (const one of watched)
      if (isMeant(one)) {
        watched.delete(one)
        one.use()
      }
  }
  const useBytes = (pid: number | undefined, start: number, end: number): void =>
    use(({ range, isRead }) => isRead && range.pid === pid && overlaps(range, start, end))
  const useUnlent = (pid: number | undefined): void =>
    use(({ range }) => range.pid === pid && !checker.isLent(pid, range.start, range.end))

  const events: { readonly [K in ProgramEvent['event']]?: (event: ProgramEvent<K>) => void } = {
    lent: ({ pid, start, end }) => useBytes(pid, start, end),
    advertised: ({ pid, start, end }) => useBytes(pid, start, end),
    takenBack: ({ pid }) => useUnlent(pid),
    lendsEnd: ({ pid }) => useUnlent(pid),
    unmapped: ({ object }) => use(({ range }) => range.region === object),
    called({ class: name, method, object, refused }) {
      if (name === 'mr' && method !== 'create' && refused === undefined) use(({ range }) => range.region === object?.id)
    },
  }

  const consumer: ProgramConsumer = {
    event: event => (events[event.event] as ((event: ProgramEvent) => void) | undefined)?.(event),
    // The bytes are written when the device goes on.
    accessed(device, rkey, hi, lo, length, _, qpn) {
      const range = lends.rangeOf(device, rkey, (hi >>> 0) * TWO_32 + (lo >>> 0), length)
      if (range === undefined) return
      use(
        one =>
          !one.isRead &&
          !(one.device === device && one.qpn === qpn) &&
          one.range.pid === range.pid &&
          overlaps(one.range, range.start, range.end),
      )
    },
  }
  const postsOf = (device: number): RequestWatcher => ({
    posted({ queue, opcode, elements }: WorkRequest) {
      if (queue !== PostQueue.SEND || returnsData(opcode)) return
      for (const { address, length, lkey } of elements) {
        const memory = memoryOf(device, lkey)
        if (memory === undefined) continue
        const start = address + memory.shift
        use(({ range, space }) => space === memory.space && overlaps(range, start, start + length))
      }
    },
    ended: ignore,
    completed: ignore,
    receiveLost: ignore,
    receiverNotReady: ignore,
    polled: ignore,
    queueReset: ignore,
  })

  const begin = (): void => {
    const ends = [stream.add(ConsumerRank.CHECK, consumer), watchPosts(postsOf)]
    stop = () => {
      for (const end of ends) end()
    }
  }

  return device => ({
    watch(key, hi, lo, length, qpn, isRead, onUse) {
      const range = lends.rangeOf(device, key, (hi >>> 0) * TWO_32 + (lo >>> 0), length)
      if (range === undefined || !checker.isLent(range.pid, range.start, range.end)) return undefined
      for (const { range: other } of watched)
        if (other.pid === range.pid && overlaps(other, range.start, range.end)) return undefined
      const one: Watched = { range, device, qpn, isRead, space: memoryOf(device, key)?.space, use: onUse }
      if (stop === undefined) begin()
      watched.add(one)
      return () => {
        watched.delete(one)
        if (watched.size > 0) return
        stop?.()
        stop = undefined
      }
    },
    update() {
      readLends?.()
      if (watched.size > 0) use(({ range }) => !checker.isLent(range.pid, range.start, range.end))
    },
  })
}
