/*
 * `userdma export` of session files from somebody else: every format, for each kind of record with each of its fields
 * damaged, with JSON of any shape, in events and in checkpoints. An export ends with what is whole, prints nothing that
 * a terminal acts on, and its output is bounded.
 */
import assert from 'node:assert/strict'
import { closeSync, linkSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { exportFormats } from '../../../src/cli/command-line/options.ts'
import { explainSlow } from '../../../src/cli/commands/explain-slow.ts'
import { exportSession } from '../../../src/cli/commands/export.ts'
import type { AnyEvent } from '../../../src/spec/session-events.ts'
import {
  BLOCK_TRAILER,
  BlockHeader,
  BlockType,
  FileHeader,
  fieldBytes,
  MAX_BLOCK,
  RECORD_HEADER,
  type RecordLayout,
  Records,
  recordKinds,
  SegmentBytes,
} from '../../../src/spec/session-file.ts'
import { putFields } from '../../../src/tools/record/block.ts'
import { checksum } from '../../../src/tools/record/checksum.ts'
import { copyEvent } from '../../../src/tools/record/copy.ts'
import { readBlockHeader, viewOf } from '../../../src/tools/record/decode.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { SessionWriter } from '../../../src/tools/record/writer.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { anyEvent } from '../../tools/record/arbitrary.ts'
import { createMemorySink } from '../../tools/record/memory-sink.ts'
import { connected, FIRST_PSN, LEFT, packets, posted, RIGHT } from '../../web/events.ts'
import { sessionEvents } from './session.ts'

const formats = Object.keys(exportFormats) as (keyof typeof exportFormats)[]

const ESCAPE = '\u001b]0;owned\u0007\u009b31m\u202e\n'
const POLLS = 424_242

/** A connection with a READ and a SEND that is not received at once. */
const slowEvents = (): readonly AnyEvent[] => {
  const completed = (request: number): AnyEvent => ({
    kind: 'completed',
    request,
    owner: LEFT,
    status: 0,
    opcode: 0,
    bytes: 0,
    cq: 20,
    cqPosition: request,
    solicited: false,
    qp: LEFT,
    message: 0,
  })
  return [
    ...connected(),
    { kind: 'counters', device: 0, object: LEFT, values: { window: 4096 } },
    posted(LEFT, 1, 'RDMA_READ', 4096, 0),
    posted(LEFT, 2, 'SEND', 64, 0),
    packets(LEFT, 'RC_READ_REQUEST', FIRST_PSN, 0),
    packets(RIGHT, 'RC_READ_RESP_ONLY', FIRST_PSN, 0),
    { kind: 'ended', request: 1, owner: LEFT },
    completed(1),
    packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN + 4, 0),
    packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN + 4, 0, { syndrome: 0x20 }),
    packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN + 4, 0),
    { kind: 'ended', request: 2, owner: LEFT },
    completed(2),
    { kind: 'polled', cq: 20, count: 2 },
  ]
}

/** A file with a block for each event. `checkpoints`: the first blocks. */
const blocksOf = async (events: readonly AnyEvent[]): Promise<{ header: Uint8Array; blocks: Uint8Array[] }> => {
  const sink = createMemorySink()
  const about = { application: `userdma${ESCAPE}`, machine: ESCAPE, origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, about)
  for (const [i, event] of events.entries()) {
    copyEvent(writer, i, event)
    writer.flush()
  }
  await writer.end(events.length, ESCAPE)
  const session = await openSession(bytesSource(sink.bytes))
  const blocks = session.blocks.map(({ position, length }) => sink.bytes.slice(position, position + length))
  return { header: sink.bytes.slice(0, FileHeader.bytes), blocks: blocks.filter((_, i) => i > 0) }
}

const fileOf = (header: Uint8Array, blocks: readonly Uint8Array[]): Uint8Array => {
  const bytes = Buffer.concat([header, ...blocks])
  assert.ok(bytes.length < FileHeader.bytes + SegmentBytes.max)
  return bytes
}

/** The last record of a block, which is its event: its position and kind. */
const eventAt = (block: Uint8Array) => {
  const view = viewOf(block)
  let at: number = BlockHeader.size
  for (;;) {
    const word = view.getUint32(at, true)
    const next = at + (word & 0xff_ffff)
    if (next >= block.length - BLOCK_TRAILER) return { at, kind: recordKinds[(word >>> 24) - 1] }
    at = next
  }
}

/** A block whose checksum is right. `body`: of its last record. */
const withBody = (block: Uint8Array, body: Uint8Array, type: number = BlockType.EVENTS): Uint8Array => {
  const { at } = eventAt(block)
  const length = at + RECORD_HEADER + body.length + BLOCK_TRAILER
  const bytes = new Uint8Array(length)
  bytes.set(block.subarray(0, at + RECORD_HEADER))
  bytes.set(body, at + RECORD_HEADER)
  const view = viewOf(bytes)
  const header = readBlockHeader(block, 0)
  assert.ok(header)
  putFields(view, 0, BlockHeader, { ...header, length, type })
  view.setUint32(at, (view.getUint32(at, true) & 0xff00_0000) | (RECORD_HEADER + body.length), true)
  view.setUint32(length - BLOCK_TRAILER, checksum(view, length - BLOCK_TRAILER), true)
  return bytes
}

const EXTREMES = {
  f64: [Number.NaN, Number.POSITIVE_INFINITY, -1, 1e300, 0.5],
  u32: [0, 1, 0xff, 0xffff_ffff],
  s32: [0, 1, -1, 0x7fff_ffff],
  text: [0, 0xffff_ffff],
  u64: [0xffff_ffff],
} as const

/** A block with each field of its event damaged in each way. */
const damagedFields = (block: Uint8Array): Uint8Array[] => {
  const { at, kind } = eventAt(block)
  if (kind === undefined) return []
  const layout: RecordLayout = Records[kind]
  const body = block.subarray(at + RECORD_HEADER, block.length - BLOCK_TRAILER)
  let offset = 0
  return [...layout.fields, ['', 'u32'] as const].flatMap(([, type]) => {
    const place = offset
    offset += fieldBytes(type)
    return EXTREMES[type].flatMap(value => {
      const damaged = body.slice()
      if (place + fieldBytes(type) > damaged.length) return []
      const view = viewOf(damaged)
      if (type === 'f64') view.setFloat64(place, value, true)
      else view.setUint32(place, value, true)
      return [withBody(block, damaged)]
    })
  })
}

const WRONG = [null, 1e300, ESCAPE, [[null]], { a: { b: 1 } }]
const DEEP = `${'['.repeat(10_000)}${']'.repeat(10_000)}`

/** A block with each property of its event's JSON damaged in each way. */
const damagedJson = (block: Uint8Array): Uint8Array[] => {
  const { at, kind } = eventAt(block)
  if (kind === undefined || !['object', 'call', 'failure', 'finding', 'torment', 'wait', 'symbol'].includes(kind))
    return []
  const start = at + RECORD_HEADER
  const fields = block.subarray(start, start + Records[kind].size)
  const text = new TextDecoder().decode(block.subarray(start + fields.length, block.length - BLOCK_TRAILER))
  const variants: string[] = ['', '{', 'null', '[]', '{}', DEEP, text.replace('{', `{"extra":${DEEP},`)]
  const vary = (value: unknown, put: (changed: unknown) => unknown): void => {
    for (const wrong of WRONG) variants.push(JSON.stringify(put(wrong)))
    if (typeof value !== 'object' || value === null) return
    for (const [name, inner] of Object.entries(value)) vary(inner, changed => put({ ...value, [name]: changed }))
  }
  for (const [name, inner] of Object.entries(JSON.parse(text)))
    vary(inner, changed => ({ ...JSON.parse(text), [name]: changed }))
  return variants.map(variant => withBody(block, Buffer.concat([fields, Buffer.from(variant)])))
}

describe('userdma export of hostile files', async () => {
  const failure = {
    kind: 'send',
    device: 'rxe0',
    cause: 'rkey',
    vendorErr: 1,
    args: { rkey: 7 },
    text: ESCAPE,
    qpn: 17,
  }
  const torment = { time: 1, device: 'rxe0', torment: { number: 1, kind: 'event', text: ESCAPE } }
  const wait = { device: 'rxe0', pid: 2, command: ESCAPE, id: 'receive', text: ESCAPE, since: 1, objects: [1] }
  const symbol = { function: ESCAPE, file: ESCAPE, line: 2, source: { first: 1, lines: [ESCAPE, ESCAPE] } }
  const others = [
    { kind: 'failure', object: 1, failure: { time: 1, pid: 2, command: ESCAPE, device: 'rxe0', failure } },
    { kind: 'torment', torment },
    { kind: 'wait', change: 'began', wait: 1, facts: wait },
    { kind: 'programEnd', pid: 2, command: ESCAPE, status: 139, signal: ESCAPE },
    { kind: 'symbol', frame: `/app+0x1 ${ESCAPE}`, frames: [symbol] },
    { kind: 'program', hasMore: false, text: `{"event":"forked","pid":1,"stack":["${ESCAPE}"]}` },
    { kind: 'answer', hasMore: true, text: ESCAPE },
    { kind: 'accessed', device: 0, rkey: 1, high: 0, low: 4096, length: 8, access: 1, qpn: 17 },
  ] as unknown as AnyEvent[]
  const events = [...(await sessionEvents()), ...others, ...fc.sample(anyEvent, { numRuns: 60, seed: 3 })]
  // One of each kind with escape sequences in its texts.
  const texts = (value: unknown): unknown => (typeof value === 'string' ? `${value}${ESCAPE}` : value)
  const hostile = events.map(event => {
    const changed: Record<string, unknown> = { ...event }
    for (const name of ['name', 'address', 'class', 'method', 'reason', 'from', 'to'])
      if (name in changed) changed[name] = texts(changed[name])
    return changed as unknown as AnyEvent
  })
  const { header, blocks } = await blocksOf(hostile)
  const [polled] = (await blocksOf([{ kind: 'polled', cq: 1, count: POLLS }])).blocks
  const ofKind = [...new Map(blocks.map(block => [eventAt(block).kind, block])).values()]
  const kinds = new Set(ofKind.map(block => eventAt(block).kind))
  // The writer makes the others itself.
  assert.deepEqual(
    recordKinds.filter(kind => !kinds.has(kind)),
    ['text', 'flow', 'lost', 'checkpoint'],
  )

  const damages: Readonly<Record<string, readonly Uint8Array[]>> = {
    'texts with escape sequences': blocks,
    'damaged fields': ofKind.flatMap(damagedFields),
    'JSON of any shape': ofKind.flatMap(damagedJson),
    'wrong checksums': ofKind.map(block => block.map((byte, i) => (i === block.length - 1 ? ~byte : byte))),
    'times that are none': [Number.NaN, 1e300, -1].map(time => {
      const copy = withBody(blocks[0], new Uint8Array(0))
      viewOf(copy).setFloat64(16, time, true)
      viewOf(copy).setUint32(copy.length - BLOCK_TRAILER, checksum(viewOf(copy), copy.length - BLOCK_TRAILER), true)
      return copy
    }),
  }
  const asCheckpoint = (block: Uint8Array): Uint8Array => {
    const copy = block.slice()
    putFields(viewOf(copy), 0, BlockHeader, {
      ...(readBlockHeader(block, 0) ?? assert.fail()),
      type: BlockType.CHECKPOINT,
    })
    const end = copy.length - BLOCK_TRAILER
    viewOf(copy).setUint32(end, checksum(viewOf(copy), end), true)
    return copy
  }

  for (const [damage, damaged] of Object.entries(damages))
    it(`${damage}: each format has what is whole, without what a terminal acts on`, async t => {
      // Says how many parts were left out.
      const said = t.mock.method(process.stderr, 'write', () => true)
      const folder = temporaryFolder(t)
      const file = join(folder, 'session.udr')
      const inCheckpoint = damage.startsWith('times') || damage.startsWith('wrong') ? [] : damaged.map(asCheckpoint)
      writeFileSync(file, fileOf(header, [...inCheckpoint, polled, ...damaged, polled]))
      for (const redact of [false, true])
        for (const to of redact ? (['json', 'html'] as const) : formats) {
          const output = join(folder, to)
          await exportSession(file, { to, output, redact })
          if (to !== 'text' && to !== 'json') continue
          const text = readFileSync(output, 'utf8')
          assert.doesNotMatch(text, /(?!\n)[\p{C}\p{Zl}\p{Zp}]/u)
          assert.ok(text.includes(String(POLLS)))
          if (damage === 'wrong checksums')
            assert.match(
              String(said.mock.calls.at(-1)?.arguments[0]),
              new RegExp(`: ${damaged.length} damaged parts of`),
            )
          if (to === 'json') for (const line of text.trim().split('\n')) JSON.parse(line)
        }
    })

  /** What `userdma explain --slow` prints. */
  const slowTexts = async (
    t: TestContext,
    bytes: Uint8Array,
  ): Promise<{ text: string; json: string; said: string }> => {
    const file = join(temporaryFolder(t), 'session.udr')
    writeFileSync(file, bytes)
    const capture = async (stream: 'stdout' | 'stderr', act: () => Promise<void>): Promise<string> => {
      let written = ''
      const original = process[stream].write
      // The test runner writes bytes.
      const mock = t.mock.method(process[stream], 'write', (chunk: string | Uint8Array) => {
        if (typeof chunk !== 'string') return original.call(process[stream], chunk)
        written += chunk
        return true
      })
      await act().finally(() => mock.mock.restore())
      return written
    }
    let [text, json] = ['', '']
    const said = await capture('stderr', async () => {
      text = await capture('stdout', () => explainSlow(file, { top: 5 }))
      json = await capture('stdout', () => explainSlow(file, { top: 5, json: true }))
    })
    return { text, json, said }
  }
  const assertSafe = ({ text, json, said }: { text: string; json: string; said: string }): void => {
    for (const one of [text, said]) assert.doesNotMatch(one, /(?!\n)[\p{C}\p{Zl}\p{Zp}]/u)
    assert.doesNotMatch(text, /NaN|Infinity|undefined/)
    for (const line of json.trim().split('\n')) if (line !== '') JSON.parse(line)
  }
  for (const [damage, damaged] of Object.entries(damages))
    it(`explain --slow: ${damage}`, async t => {
      const inCheckpoint = damage.startsWith('times') || damage.startsWith('wrong') ? [] : damaged.map(asCheckpoint)
      assertSafe(await slowTexts(t, fileOf(header, [...inCheckpoint, ...damaged])))
    })

  it('explain --slow: sends of a connection with each field of each event damaged', async t => {
    const sends = (await blocksOf(slowEvents())).blocks
    for (const [i, block] of sends.entries())
      assertSafe(
        await slowTexts(
          t,
          fileOf(header, [
            ...sends.slice(0, i),
            ...damagedFields(block),
            ...damagedJson(block),
            block,
            ...sends.slice(i + 1),
          ]),
        ),
      )
  })

  const many = (block: Uint8Array, count: number): Uint8Array[] => Array.from({ length: count }, () => block)
  const amplifiers: Readonly<Record<string, () => Promise<readonly Uint8Array[]>>> = {
    'a run of many packets, as pcapng': async () => {
      const index = blocks.findIndex(block => eventAt(block).kind === 'packets')
      const { at } = eventAt(blocks[index])
      const body = blocks[index].slice(at + RECORD_HEADER, -BLOCK_TRAILER)
      viewOf(body).setUint32(20, 2 ** 16, true)
      return [withBody(blocks[index], body)]
    },
    'a long text that a terminal does not show, as text': async () =>
      many(
        (await blocksOf([{ kind: 'device', change: 'added', device: 1, name: '\u0001'.repeat(10_000), address: '' }]))
          .blocks[0],
        120,
      ),
  }
  for (const [title, make] of Object.entries(amplifiers))
    it(`${title}: ends with a sentence, and leaves an older file`, async t => {
      const folder = temporaryFolder(t)
      const [file, output] = [join(folder, 'session.udr'), join(folder, 'output')]
      writeFileSync(file, fileOf(header, await make()))
      writeFileSync(output, 'older')
      const to = title.split(' as ')[1] as keyof typeof exportFormats
      await assert.rejects(exportSession(file, { to, output, maxSize: 2 ** 20 }), {
        message: 'the output has more than 1 MiB, the --max-size',
      })
      assert.deepEqual([readFileSync(output, 'utf8'), readdirSync(folder).sort()], ['older', ['output', 'session.udr']])
    })

  it('a block longer than a writer makes is left out', async t => {
    const folder = temporaryFolder(t)
    const [file, output] = [join(folder, 'session.udr'), join(folder, 'output')]
    const long = withBody(blocks[0], new Uint8Array(MAX_BLOCK))
    writeFileSync(file, fileOf(header, [polled, long]))
    await exportSession(file, { to: 'text', output })
    assert.equal(readFileSync(output, 'utf8').trim().split('\n').length, 2)
  })

  it('the session itself is no output, by whatever name', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'session.udr')
    const bytes = fileOf(header, [polled])
    writeFileSync(file, bytes)
    linkSync(file, join(folder, 'link'))
    const fd = openSync(file, 'r+')
    for (const output of [file, join(folder, '.', 'session.udr'), join(folder, 'link'), `/dev/fd/${fd}`])
      await assert.rejects(exportSession(file, { to: 'text', output }), {
        name: 'UsageError',
        message: `--output and the session are the same file ${output}`,
      })
    closeSync(fd)
    assert.deepEqual(readFileSync(file), bytes)
  })
})
