/*
 * Symbols of a session: found at its end without reading it, bounded, and without what is private after redaction.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SymbolFrame } from '../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { createRedactor } from '../../../src/tools/record/redact.ts'
import { callersLine, readSymbols, SessionSymbols } from '../../../src/tools/record/symbols.ts'
import { MIN_RECORD_LIMIT, SessionWriter } from '../../../src/tools/record/writer.ts'
import { createMemorySink } from './memory-sink.ts'

const OPTIONS = { application: 'test 1', machine: 'none', origin: 1000, payload: 0 }
const MAIN = '/home/someone/app+0x1302 '
const POST = '/usr/lib/libibverbs.so.1+0x20 ibv_post_send'
const main: SymbolFrame = {
  function: 'main',
  file: '/home/someone/app.c',
  line: 7,
  object: '/home/someone/app',
  source: { first: 6, lines: ['{', '  post();', '}'] },
}
const post: SymbolFrame = { function: 'ibv_post_send', object: '/usr/lib/libibverbs.so.1' }
const wait = {
  pid: 2,
  command: 'app',
  device: 'rxe0',
  id: 'both-receive' as const,
  text: 'waits',
  since: 1,
  objects: [],
}

/** The symbols of a file, and how many of its bytes were read for them. */
const symbolsIn = async (bytes: Uint8Array) => {
  let count = 0
  let isCounted = false
  const { size, read } = bytesSource(bytes)
  const source = {
    size,
    read(offset: number, length: number) {
      if (isCounted) count += length
      return read(offset, length)
    },
  }
  const session = await openSession(source)
  isCounted = true
  const symbols = new SessionSymbols()
  let found = 0
  await readSymbols(session, event => {
    symbols.add(event)
    found++
  })
  return { symbols, count, found }
}

describe('symbols of a session', () => {
  it('are read from its end, whatever comes after them', async () => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, OPTIONS)
    writer.symbol({ frame: MAIN, frames: [main] })
    for (let i = 0; i < 200_000; i++) writer.polled(i, 1, i)
    writer.wait(200_000, { wait: 1, change: 'began', facts: wait })
    writer.symbol({ frame: POST, frames: [post] })
    await writer.end(200_001, 'done')
    const { symbols, count, found } = await symbolsIn(sink.bytes)
    assert.equal(found, 2)
    assert.ok(count < 2 ** 17, `${count} of ${sink.bytes.length} bytes were read`)
    assert.equal(callersLine(symbols, [POST, MAIN, '/lib/libc.so.6+0x1 start']), 'ibv_post_send < main (app.c:7)')
    assert.equal(callersLine(symbols, ['/x+0x1 f']), '/x+0x1 f')
  })

  it('are none in a recording that was cut off, whose events are whole', async () => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, OPTIONS)
    writer.symbol({ frame: MAIN, frames: [main] })
    writer.polled(1, 1, 1)
    writer.flush()
    const { symbols, found } = await symbolsIn(sink.bytes)
    assert.equal(found, 0)
    assert.deepEqual(symbols.framesOf([MAIN]), [{ function: MAIN.trimEnd() }])
  })

  it('are found beside a damaged block', async () => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, OPTIONS)
    writer.polled(1, 1, 1)
    writer.symbol({ frame: MAIN, frames: [main] })
    await writer.end(2, 'done')
    const session = await openSession(bytesSource(sink.bytes))
    const last = session.blocks.at(-1)
    assert.ok(last)
    sink.bytes[last.position + last.length - 8]! ^= 1
    assert.equal((await symbolsIn(sink.bytes)).found, 1)
  })

  it('leave most of a small file to its events', async () => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, { ...OPTIONS, limit: MIN_RECORD_LIMIT })
    for (let i = 0; i < 1000; i++) writer.polled(i, 1, i)
    let accepted = 0
    while (writer.symbol({ frame: `${MAIN}${accepted}`, frames: [main] })) accepted++
    assert.ok(accepted > 100)
    // A frame that fits into no record is left out.
    const small = new SessionWriter(createMemorySink(), OPTIONS)
    assert.ok(small.symbol({ frame: 'x'.repeat(40_000), frames: [main] }))
    await writer.end(1001, 'done')
    assert.equal((await symbolsIn(sink.bytes)).found, accepted)
    assert.equal(writer.lost, 0)
    const session = await openSession(bytesSource(sink.bytes))
    assert.equal(session.overwritten, 0)
  })

  it('lose source and folders by redaction, and still belong to their stacks', () => {
    const redact = createRedactor()
    const events = [
      { kind: 'queueReset', owner: 1, time: 1 },
      { kind: 'symbol', frame: MAIN, frames: [main], time: 2 },
      { kind: 'symbol', frame: POST, frames: [post], time: 2 },
    ] as const
    const symbols = new SessionSymbols()
    const redacted = events.map(redact)
    for (const event of redacted) symbols.add(event)
    const text = JSON.stringify(redacted)
    for (const secret of ['someone', 'post();', '/usr/lib']) assert.ok(!text.includes(secret), secret)
    const call = redact({ kind: 'call', object: 1, stack: [POST, MAIN], call: {} as never, time: 3 })
    assert.ok(call.kind === 'call')
    assert.equal(callersLine(symbols, call.stack), 'ibv_post_send < main (app.c:7)')
  })
})
