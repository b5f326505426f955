/*
 * Files that somebody gives to the page: text, gzip and tar archives, as `userdma explain` reads them. Browsers
 * decompress gzip, and not zstd.
 */
import type { LogAnalysis } from '../../src/tools/logs/analysis.ts'
import { logsIn, type Reading, Taker, type Unread } from '../../src/tools/logs/archive.ts'

/** Not every browser's streams are iterable. */
const chunksOf = async function* (stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader()
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value
}

const gunzip = async function* (
  from: AsyncIterable<Uint8Array>,
  onDamage: (reason: string) => void,
): AsyncGenerator<Uint8Array> {
  const iterator = from[Symbol.asyncIterator]()
  const packed = new ReadableStream<BufferSource>({
    async pull(controller) {
      const next = await iterator.next()
      if (next.done) controller.close()
      else controller.enqueue(next.value as Uint8Array<ArrayBuffer>)
    },
  })
  try {
    yield* chunksOf(packed.pipeThrough<Uint8Array>(new DecompressionStream('gzip')))
  } catch (error) {
    onDamage(`its compression is damaged (${(error as Error).message})`)
  }
}

const unpack: Reading['unpack'] = async (from, onDamage) => {
  const taker = new Taker(from)
  const start = await taker.peek(2)
  return start[0] === 0x1f && start[1] === 0x8b ? gunzip(taker.up(), onDamage) : taker.up()
}

/** Reads files into `analysis`; `show` is told how far. What cannot be read is the result. */
export const readFiles = async (
  analysis: LogAnalysis,
  files: readonly File[],
  show: (state: string) => void,
): Promise<readonly Unread[]> => {
  const unread: Unread[] = []
  for (const file of files) {
    show(`${file.name} …`)
    const reading: Reading = { unpack, unread }
    let last: string | undefined
    const bytes = await unpack(chunksOf(file.stream()), reason => {
      reading.damage ??= reason
    })
    for await (const { name, chunks } of logsIn(file.name, bytes, reading)) {
      const log = analysis.begin(name)
      for await (const chunk of chunks) {
        log.push(chunk)
        show(`${name}: ${log.lines} lines`)
      }
      log.end()
      last = name
    }
    if (last !== undefined && reading.damage !== undefined) analysis.cut(last)
  }
  return unread
}
