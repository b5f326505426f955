/*
 * A daemon as the data of a page: the daemon records into a temporary file of ours (as for `--record`), and the page
 * reads the file as it grows. After the end of the daemon, the next one at its socket is recorded.
 */
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastingWaits } from '../../daemon/client/lasting-waits.ts'
import type { WaitStat } from '../../spec/check/waits.ts'
import type { FaultStat } from '../../spec/faults.ts'
import { readAt } from './file.ts'
import type { DataState, FaultState, SymbolState } from './protocol.ts'
import type { PageData, Snapshot } from './server.ts'
import { copySession } from './snapshot.ts'

/** A tool's session with a daemon. */
export interface LiveClient {
  /** Resolves when the daemon has ended or the session is closed. */
  readonly ended: Promise<void>
  /** As the request of tools. */
  record(fd: number, options: { application: string; payload: number; limit: number }): Promise<void>
  faults(set?: string): Promise<readonly FaultStat[]>
  waits(): Promise<readonly WaitStat[]>
  /** What the frames are that programs have sent since the last call. Throws an Error. */
  newSymbols(): Promise<readonly SymbolState[]>
  close(): void
}

interface LiveOptions {
  readonly name: string
  /** As `PageData.run`. */
  readonly run: string
  /** The program that asks, with its version. */
  readonly application: string
  /** Maximum bytes of the temporary file; the oldest events are overwritten. */
  readonly limit: number
  readonly allowsFaults: boolean
  /** Opens a session with the daemon. Throws an Error. */
  connect(): Promise<LiveClient>
}

/** Milliseconds between two looks at the file, and between two attempts to reach the next daemon. */
const LOOK_INTERVAL = 200
const CONNECT_INTERVAL = 500
/** Milliseconds from one look for symbols to the next. */
const SYMBOLS_INTERVAL = 1000
/** Symbols that are kept at most: those of all daemons that were shown. */
const MAX_SYMBOLS = 20_000

type OpenFile = Awaited<ReturnType<typeof open>>

/** A file without a name, so that nothing is left behind. */
const temporaryFile = async (): Promise<OpenFile> => {
  const folder = await mkdtemp(join(tmpdir(), 'userdma-inspect-'))
  try {
    return await open(join(folder, 'session'), 'wx+', 0o600)
  } finally {
    await rm(folder, { recursive: true })
  }
}

const faultState = ({ rule, matched, ...counts }: FaultStat): FaultState => ({
  rule,
  matched,
  faults: Object.values(counts).reduce((sum, count) => sum + count, 0),
})

/** Starts a recording. Throws the error of `connect`, or of the daemon. */
export const openLive = async (options: LiveOptions): Promise<{ readonly data: PageData; close(): Promise<void> }> => {
  const { name, run, application, limit, allowsFaults, connect } = options
  const listeners = new Set<() => void>()
  let client: LiveClient | undefined
  let file: OpenFile | undefined
  let state: DataState = { recording: 0, size: 0, isGrowing: true }
  let changedAt = 0
  let isClosed = false

  const setState = (change: Partial<DataState>): void => {
    state = { ...state, ...change }
    for (const listener of listeners) listener()
  }

  const start = async (): Promise<void> => {
    const next = await connect()
    const nextFile = await temporaryFile()
    try {
      await next.record(nextFile.fd, { application, payload: 0, limit })
    } catch (error) {
      next.close()
      await nextFile.close()
      throw error
    }
    await file?.close()
    client = next
    file = nextFile
    changedAt = 0
    const { notice: _, ...rest } = state
    state = { ...rest, recording: state.recording + 1, size: 0 }
    void next.ended.then(() => {
      if (!isClosed) void startNext()
    })
  }

  const startNext = async (): Promise<void> => {
    client = undefined
    setState({ notice: 'the daemon has ended; the page goes on when another one starts' })
    while (!isClosed) {
      await new Promise(resolve => setTimeout(resolve, CONNECT_INTERVAL))
      try {
        return await start()
      } catch {
        // There is none yet.
      }
    }
  }

  const look = async (): Promise<void> => {
    const looked = file
    const { size, mtimeMs } = (await looked?.stat().catch(() => undefined)) ?? { size: 0, mtimeMs: 0 }
    if (file !== looked || size === 0 || (size === state.size && mtimeMs === changedAt)) return
    changedAt = mtimeMs
    setState({ size })
  }

  /** The present look at what programs wait for: all pages share it. */
  let looking: Promise<readonly WaitStat[]> | undefined
  const waits = (): Promise<readonly WaitStat[]> => {
    const asked = client
    if (asked === undefined) return Promise.resolve([])
    looking ??= lastingWaits(() => asked.waits()).finally(() => {
      looking = undefined
    })
    return looking
  }

  /** A copy in a file without a name, so that the reader may be slow. */
  const save = async (): Promise<Snapshot> => {
    const [from, { size }] = [file, state]
    if (from === undefined) throw new Error('there is no recording yet')
    const copy = await temporaryFile()
    try {
      const source = { size, read: (offset: number, length: number) => readAt(from, offset, length) }
      const bytes = await copySession(source, async (position, part) => {
        for (let at = 0; at < part.length; )
          at += (await copy.write(part, at, part.length - at, position + at)).bytesWritten
      })
      // A copy that began anew may be shorter.
      await copy.truncate(bytes)
      return { size: bytes, read: (offset, length) => readAt(copy, offset, length), close: () => copy.close() }
    } catch (error) {
      await copy.close()
      throw error
    }
  }

  await start()
  // The header is written before the first reply of a page.
  while (state.size === 0) {
    await look()
    if (state.size === 0) await new Promise(resolve => setTimeout(resolve, LOOK_INTERVAL / 10))
  }
  const timer = setInterval(() => void look(), LOOK_INTERVAL)
  const symbols: SymbolState[] = []
  let symbolsAt = 0
  const addSymbols = async (from: LiveClient): Promise<void> => {
    for (const symbol of await from.newSymbols()) if (symbols.length < MAX_SYMBOLS) symbols.push(symbol)
    // The page asks for them.
    setState({})
  }
  const symbolsTimer = setInterval(() => {
    // Without events there are no new stacks.
    if (client === undefined || changedAt === symbolsAt) return
    symbolsAt = changedAt
    // The daemon has ended: the next one has its own.
    addSymbols(client).catch(() => {})
  }, SYMBOLS_INTERVAL)
  return {
    data: {
      name,
      run,
      isLive: true,
      state: () => state,
      read: (offset, length) =>
        file === undefined ? Promise.resolve(new Uint8Array(0)) : readAt(file, offset, length),
      onChange(listener) {
        listeners.add(listener)
        return () => listeners.delete(listener)
      },
      waits,
      symbols: from => symbols.slice(from),
      save,
      ...(allowsFaults && {
        async faults(rules?: string) {
          if (client === undefined) throw new Error('the daemon has ended')
          return (await client.faults(rules)).map(faultState)
        },
      }),
    },
    async close() {
      isClosed = true
      clearInterval(timer)
      clearInterval(symbolsTimer)
      client?.close()
      await file?.close()
    },
  }
}
