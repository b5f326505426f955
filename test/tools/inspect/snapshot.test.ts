/*
 * Copies of a recording that goes on: whole session files, whatever is written and overwritten meanwhile.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { copySession } from '../../../src/tools/inspect/snapshot.ts'
import { bytesSource, openSession, type SessionSource } from '../../../src/tools/record/reader.ts'
import { MIN_RECORD_LIMIT, SessionWriter } from '../../../src/tools/record/writer.ts'
import { createMemorySink } from '../record/memory-sink.ts'

/** A recording of numbers, which are the ids of queues that are reset. */
const recording = (limit: number | undefined) => {
  const sink = createMemorySink()
  const writer = new SessionWriter(sink, { application: 'x', machine: 'x', origin: 0, payload: 0, limit })
  let number = 0
  const add = (count: number): void => {
    for (let i = 0; i < count; i++) writer.failure(number, ++number, failureOf(number))
    writer.flush()
  }
  return { sink, add, last: () => number }
}

const failureOf = (number: number) =>
  ({
    time: 0,
    pid: 1,
    command: 'x',
    device: 'x',
    failure: { kind: 'send', device: 'x', cause: 'x', vendorErr: 1, args: {}, text: `${number} ${'x'.repeat(200)}` },
  }) as never

/** The numbers of the copy. */
const copyOf = async (source: SessionSource): Promise<number[]> => {
  const copy = createMemorySink()
  const size = await copySession(
    source,
    (position, bytes) => new Promise(resolve => copy.write(position, bytes.slice(), () => resolve())),
  )
  const session = await openSession(bytesSource(copy.bytes.slice(0, size)))
  const numbers: number[] = []
  for await (const event of session.eventsIn()) if (event.kind === 'failure') numbers.push(event.object)
  assert.equal(session.damaged, 0)
  for (const [i, number] of numbers.entries()) assert.equal(number, numbers[0] + i, 'there is a gap')
  return numbers
}

describe('a copy of a recording', () => {
  for (const [name, limit, count] of [
    ['that has just begun', undefined, 0],
    ['without a limit', undefined, 10_000],
    ['with a limit that was not reached', MIN_RECORD_LIMIT, 100],
    ['that has overwritten its oldest events', MIN_RECORD_LIMIT, 50_000],
  ] as const)
    it(`${name} has all events that its file has`, async () => {
      const { sink, add, last } = recording(limit)
      add(count)
      const numbers = await copyOf(bytesSource(sink.bytes))
      assert.equal(numbers.at(-1), count === 0 ? undefined : last())
      const session = await openSession(bytesSource(sink.bytes))
      let events = 0
      for await (const event of session.eventsIn()) if (event.kind === 'failure') events++
      assert.equal(numbers.length, events)
    })

  it('is whole if much is written and overwritten between any two reads, and if a block is half written', async () => {
    for (const between of [1, 10, 300, 5000]) {
      const { sink, add } = recording(MIN_RECORD_LIMIT)
      add(30_000)
      const numbers = await copyOf({
        size: sink.bytes.length,
        async read(offset, length) {
          add(between)
          const bytes = sink.bytes.slice(offset, offset + length)
          // The end of a long read is newer than its beginning.
          if (length > 2 ** 16) {
            add(between)
            bytes.set(sink.bytes.slice(offset + length / 2, offset + length), length / 2)
          }
          return bytes
        },
      })
      // More than the whole file is overwritten between two reads.
      assert.ok(between >= 300 || numbers.length > 0, `${between}`)
    }
  })
})
