/*
 * Reading the rows of a connection: a filter searches the whole session.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../src/spec/session-events.ts'
import { copyEvent } from '../../src/tools/record/copy.ts'
import { connectionsOf, SessionObjects } from '../../src/tools/record/objects.ts'
import { bytesSource, openSession } from '../../src/tools/record/reader.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { beginRows, readRows } from '../../web/ladder/read-rows.ts'
import type { Row } from '../../web/ladder/row.ts'
import { LadderRows } from '../../web/ladder/rows.ts'
import { createMemorySink } from '../tools/record/memory-sink.ts'
import { connected, FIRST_PSN, LEFT, packets, posted, RIGHT } from './events.ts'

const MESSAGES = 3_000

/** Messages with their ACKs, of which every hundredth is lost, beside completions of other queue pairs. */
const messages = (): SessionEvent[] =>
  Array.from({ length: MESSAGES }, (_, i): SessionEvent[] => {
    const time = 10 * i + 1
    const psn = FIRST_PSN + i
    const send = packets(LEFT, 'RC_SEND_ONLY', psn, time + 1)
    return [
      posted(LEFT, i + 1, 'SEND', 1024, time),
      send,
      ...(i % 100 === 99
        ? [packets(LEFT, 'RC_SEND_ONLY', psn, time + 2, { direction: 'received', outcome: 'dropped' }), send]
        : []),
      { kind: 'polled', time: time + 3, cq: 1, count: i },
      packets(RIGHT, 'RC_ACKNOWLEDGE', psn, time + 4),
    ]
  }).flat()

const textsOf = (rows: readonly Row[]): string[] =>
  rows.map(({ time, title, note, packet }) => `${time} ${title} | ${note} ${packet?.outcome}`)

describe('reading the rows of a connection', () => {
  it('finds the rows that match in all of the session, part by part, as if all rows were asked', async () => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, { application: 'test', machine: 'none', origin: 0, payload: 0 })
    const objects = new SessionObjects()
    for (const event of [...connected(), ...messages()]) {
      copyEvent(writer, event.time, event)
      if (event.kind === 'object') objects.add(event)
    }
    await writer.end(10 * MESSAGES + 1, 'done')
    const session = await openSession(bytesSource(sink.bytes))
    const [connection] = connectionsOf(objects)
    const isProblem = (row: Row): boolean => row.tone === 'lost' || row.tone === 'retry'

    const rows = new LadderRows(connection)
    for await (const event of session.eventsIn()) rows.add(event)
    const expected = textsOf(rows.rows.filter(isProblem))
    assert.equal(expected.length, 60)

    const progress = beginRows(connection, undefined, isProblem, 10)
    let parts = 0
    do {
      await readRows(session, connection, progress, async () => {})
      progress.limit += 10
      parts++
    } while (progress.hasMore)
    assert.ok(parts > 3)
    assert.deepEqual(textsOf([...progress.matches, ...progress.rows.rows.filter(isProblem)]), expected)
    assert.equal(progress.settled + progress.rows.rows.length, rows.rows.length)
  })
})
