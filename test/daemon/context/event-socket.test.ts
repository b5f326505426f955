/*
 * Event sockets, which carry records of events to a program. A withdrawal takes back the unread records of an element.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { eventStateOf } from '../../../src/core/events/events.ts'
import type { Affiliation, EventRecord } from '../../../src/core/model.ts'
import { EventSocket } from '../../../src/daemon/context/event-socket.ts'
import { EAGAIN } from '../../../src/host/errno.ts'
import { watch } from '../../../src/host/event-loop/poll.ts'
import { createSlices } from '../../../src/host/event-loop/slices.ts'
import {
  closeProcess,
  FDS_PER_SLICE,
  openProcess,
  type ProcessHandle,
  pidfdGetfd,
} from '../../../src/host/memory/process.ts'
import { close, recvBytes, shutdown } from '../../../src/host/net/sockets.ts'
import { DRIVER_RECORD_BYTES } from '../../../src/spec/session.ts'

/** A source of events. */
const element = (userHandle: bigint): Affiliation => ({
  userHandle,
  route: { channel: undefined, asyncFd: undefined, handlers: undefined },
  armed: 0,
  wasArmed: false,
  state: undefined,
})

/** A record of the element `of`; `number` makes records different. */
const record = (of: Affiliation, number = 0): EventRecord => {
  const bytes = new Uint8Array(16)
  new DataView(bytes.buffer).setBigUint64(0, of.userHandle, true)
  new DataView(bytes.buffer).setUint32(8, number, true)
  return { element: of, bytes, type: 1 }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

interface Setup {
  readonly socket: EventSocket
  /** The program's copy of its end. */
  readonly programEnd: number
  /** Reads at most `limit` records; returns hex. */
  read(limit?: number): string[]
  readUntil(count: number): Promise<string[]>
  close(): void
}

/**
 * This process is also the program. With `isPassed` the daemon has only its own end, and knows the program's number.
 */
const setUp = ({ isPassed = true }: { isPassed?: boolean } = {}): Setup => {
  const self = openProcess(process.pid) as ProcessHandle
  const socket = new EventSocket(
    () => [self],
    () => socket.close(),
  )
  const programEnd: number = pidfdGetfd(self, socket.peerEnd)
  assert.ok(programEnd >= 0)
  if (isPassed) {
    socket.closePeerEnd()
    socket.setPeerEnd(self, programEnd)
  }
  const buffer = new Uint8Array(64)
  const read = (limit = Number.POSITIVE_INFINITY): string[] => {
    const all: string[] = []
    while (all.length < limit) {
      const length = recvBytes(programEnd, buffer)
      if (length <= 0) break
      all.push(hex(buffer.subarray(0, length)))
    }
    return all
  }
  return {
    socket,
    programEnd,
    read,
    readUntil: count =>
      new Promise(done => {
        const all: string[] = []
        const watcher = watch(programEnd, { readable: true }, () => {
          all.push(...read())
          if (all.length < count) return
          watcher.stop()
          done(all)
        })
      }),
    close() {
      socket.close()
      close(programEnd)
      closeProcess(self)
    },
  }
}

test('a record is one packet with exactly its bytes', () => {
  const setup = setUp()
  const a = element(0x1122334455667788n)
  setup.socket.post({ element: a, bytes: Uint8Array.of(0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11), type: -1 })
  setup.socket.post(record(a, 5))
  assert.deepEqual(setup.read(), ['8877665544332211', '88776655443322110500000000000000'])
  assert.equal(recvBytes(setup.programEnd, new Uint8Array(16)), -EAGAIN)
  setup.close()
})

test('a turn is skipped if no record is unread', async () => {
  const setup = setUp()
  const a = element(1n)
  await setup.socket.prepareSkip()
  assert.equal(setup.socket.skipTurn(record(a, 1)), false)
  assert.deepEqual([setup.socket.unread(), setup.read()], [0, []])
  setup.socket.post(record(a, 2))
  assert.equal(setup.socket.skipTurn(record(a, 3)), false)
  assert.deepEqual(setup.read(), [hex(record(a, 2).bytes)])
  close(setup.programEnd)
  assert.equal(setup.socket.skipTurn(record(a, 4)), false)
  setup.socket.close()
})

for (const isPassed of [true, false])
  test(`a withdrawal counts unread records, and other records stay in order (${isPassed ? 'the program has its end' : 'the program does not have its end'})`, () => {
    const anyStep = fc.oneof(
      fc.record({ post: fc.nat(2) }),
      fc.record({ read: fc.nat(5) }),
      fc.record({ withdraw: fc.nat(2) }),
    )
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 40, size: 'max' }), steps => {
        const setup = setUp({ isPassed })
        // Two elements have the same user handle.
        const elements = [element(1n), element(2n), element(2n)]
        let expected: { of: number; bytes: string }[] = []
        let number = 0
        try {
          for (const step of steps) {
            if ('post' in step) {
              const event = record(elements[step.post], number++)
              expected.push({ of: step.post, bytes: hex(event.bytes) })
              setup.socket.post(event)
            } else if ('read' in step)
              assert.deepEqual(
                setup.read(step.read),
                expected.splice(0, step.read).map(({ bytes }) => bytes),
              )
            else {
              const kept = expected.filter(({ of }) => of !== step.withdraw)
              assert.equal(setup.socket.withdraw(elements[step.withdraw]).length, expected.length - kept.length)
              expected = kept
            }
            assert.equal(setup.socket.unread(), expected.length)
          }
          assert.deepEqual(
            setup.read(),
            expected.map(({ bytes }) => bytes),
          )
          for (const source of elements) assert.equal(setup.socket.withdraw(source).length, 0)
        } finally {
          setup.close()
        }
      }),
      { numRuns: 60 },
    )
  })

test('records with the same bytes are distinguished by their position', () => {
  const setup = setUp()
  const [a, c] = [element(7n), element(7n)]
  for (const of of [a, c, a, c, c]) setup.socket.post(record(of))
  setup.read(2)
  assert.equal(setup.socket.withdraw(c).length, 2)
  assert.equal(setup.socket.withdraw(a).length, 1)
  assert.deepEqual(setup.read(), [])
  setup.close()
})

test('records that do not fit in the socket arrive in order later, and can be withdrawn', async () => {
  const setup = setUp()
  const [a, c] = [element(1n), element(2n)]
  const ofC: string[] = []
  for (let i = 0; i < 3000; i++) {
    const event = record(i % 3 === 0 ? a : c, i)
    setup.socket.post(event)
    if (i % 3 !== 0) ofC.push(hex(event.bytes))
  }
  // Of every three records one is of `a`.
  const early = setup.read(30)
  assert.equal(early.length, 30)
  assert.equal(setup.socket.withdraw(a).length, 1000 - 10)
  assert.deepEqual(await setup.readUntil(2000 - 20), ofC.slice(20))
  setup.close()
})

test('after 20,000 records with always one unread, a withdrawal takes only the last record', () => {
  const setup = setUp()
  const a = element(1n)
  setup.socket.post(record(a, 0))
  for (let i = 1; i < 20_000; i++) {
    setup.socket.post(record(a, i))
    setup.read(1)
  }
  assert.equal(setup.socket.withdraw(a).length, 1)
  setup.close()
})

test('the queued records of a program that never reads are limited; dropped events are not counted', () => {
  const setup = setUp()
  const [a, c] = [element(1n), element(2n)]
  for (let i = 0; i < 70_000; i++) {
    eventStateOf(a).asyncs++
    setup.socket.post(record(a))
  }
  eventStateOf(c).asyncs++
  setup.socket.post(record(c))
  const { asyncs } = eventStateOf(a)
  assert.ok(asyncs < 70_000 && asyncs >= 65_536, 'about 2^16 are queued')
  assert.equal(eventStateOf(c).asyncs, 1, 'the first event of another element still arrives')
  assert.equal(setup.socket.withdraw(c).length, 1)
  assert.equal(setup.socket.withdraw(a).length, asyncs)
  setup.close()
})

test('a socket with very many queued records does not search them for each new record', () => {
  const setup = setUp()
  const [a, c] = [element(1n), element(2n)]
  let reads = 0
  const countingRecord = (of: Affiliation): EventRecord => ({
    ...record(of),
    get element() {
      reads++
      return of
    },
  })
  for (let i = 0; i < 67_000; i++) setup.socket.post(countingRecord(a))
  reads = 0
  for (let i = 0; i < 100; i++) setup.socket.post(countingRecord(c))
  // A search for each record would read 100 × 2^16 times.
  assert.ok(reads < 3 * 65_536, `${reads} reads`)
  assert.equal(setup.socket.withdraw(c).length, 1)
  setup.close()
})

test('all records of very many elements can be taken', () => {
  const setup = setUp()
  const count = 200_000
  for (let i = 0; i < count; i++) setup.socket.post(record(element(BigInt(i))))
  assert.equal(setup.socket.take(Number.POSITIVE_INFINITY).length, count)
  setup.close()
})

test('closing the last copy of the program’s end is reported, and later calls have no effect', async () => {
  let notify = (): void => {}
  const closed = new Promise<void>(done => {
    notify = done
  })
  const socket = new EventSocket(
    () => [],
    () => {
      socket.close()
      notify()
    },
  )
  socket.post(record(element(1n)))
  socket.closePeerEnd()
  await closed
  socket.post(record(element(1n)))
  assert.equal(socket.withdraw(element(1n)).length, 0)
  socket.end()
  socket.close()
})

for (const isNoticed of [true, false])
  test(`a record that is unread when the program closes its end can be withdrawn (${isNoticed ? 'after' : 'before'} the end is noticed)`, async () => {
    for (const isRead of [false, true]) {
      let notify = (): void => {}
      const ended = new Promise<void>(done => {
        notify = done
      })
      const self = openProcess(process.pid) as ProcessHandle
      const socket = new EventSocket(
        () => [self],
        () => notify(),
      )
      const a = element(1n)
      socket.post(record(a, 0))
      assert.equal(recvBytes(socket.peerEnd, new Uint8Array(64)), 16)
      socket.post(record(a, 1))
      if (isRead) assert.equal(recvBytes(socket.peerEnd, new Uint8Array(64)), 16)
      socket.closePeerEnd()
      if (isNoticed) await ended
      // These records are not sent: they are withdrawn or dropped, but not counted as read.
      eventStateOf(a).asyncs = 2
      socket.post(record(a, 2))
      socket.post(record(a, 3))
      const dropped = 2 - eventStateOf(a).asyncs
      // Records 2 and 3, and record 1 if it is unread.
      assert.equal(socket.withdraw(a).length + dropped, isRead ? 2 : 3)
      socket.close()
      closeProcess(self)
    }
  })

test('after `end` the program reads the sent records, then end of file', () => {
  const setup = setUp()
  const a = element(3n)
  setup.socket.post(record(a))
  setup.socket.end()
  assert.equal(setup.read().length, 1)
  assert.equal(recvBytes(setup.programEnd, new Uint8Array(16)), 0)
  setup.socket.post(record(a))
  assert.equal(recvBytes(setup.programEnd, new Uint8Array(16)), 0, 'a record after the end is not sent')
  setup.close()
})

test('after `end` the program reads also the records that do not fit in the socket, then end of file', async () => {
  const setup = setUp()
  const a = element(3n)
  for (let i = 0; i < 1000; i++) setup.socket.post(record(a, i))
  setup.socket.end()
  const records = await setup.readUntil(1000)
  assert.equal(records.at(-1), hex(record(a, 999).bytes))
  assert.equal(recvBytes(setup.programEnd, new Uint8Array(16)), 0)
  setup.close()
})

const loopTurns = (): number =>
  (performance.nodeTiming as unknown as { uvMetricsInfo: { loopCount: number } }).uvMetricsInfo.loopCount

test('a program that shuts down its end causes no busy loop', async () => {
  const setup = setUp()
  shutdown(setup.programEnd, 'read')
  setup.socket.post(record(element(1n)))
  // A broken socket is always writable: a watch for writability would fire in every turn.
  const before = loopTurns()
  // A busy loop takes hundreds of turns while another process starts and exits.
  await once(spawn('true'), 'close')
  assert.ok(loopTurns() - before < 20, `${loopTurns() - before} turns while nothing happens`)
  setup.close()
})

test('the program reads in order the records that `take` has not taken (R39)', () => {
  const setup = setUp()
  const a = element(1n)
  for (let i = 0; i < 4; i++) setup.socket.post(record(a, i))
  assert.deepEqual(setup.read(1), [hex(record(a, 0).bytes)])
  assert.deepEqual(
    setup.socket.take(2).map(({ bytes }) => hex(bytes)),
    [1, 2].map(number => hex(record(a, number).bytes)),
  )
  assert.deepEqual(setup.read(), [hex(record(a, 3).bytes)])
  assert.deepEqual(setup.socket.take(9), [])
  setup.close()
})

test('records can be withdrawn only if a searched process has the program’s end', async () => {
  const searched: ProcessHandle[] = []
  const socket = new EventSocket(
    () => searched,
    () => socket.close(),
  )
  const self = openProcess(process.pid) as ProcessHandle
  const programEnd: number = pidfdGetfd(self, socket.peerEnd)
  socket.closePeerEnd()
  const a = element(1n)
  socket.post(record(a))
  assert.equal(socket.withdraw(a).length, 0)
  // Process 1 does not have the end, and its descriptors may be unreadable.
  const init = openProcess(1) as ProcessHandle
  searched.push(init, self)
  await socket.prepareWithdraw?.()
  assert.equal(socket.withdraw(a).length, 1)
  socket.close()
  close(programEnd)
  closeProcess(self)
  closeProcess(init)
})

/** The program has `count` further descriptors, and has made no call on its end. */
const createUnnamedEnd = (t: TestContext, count: number) => {
  const self = openProcess(process.pid) as ProcessHandle
  let turns = 0
  const slices = createSlices(() => {
    turns++
  })
  const socket = new EventSocket(
    () => [self],
    () => {},
    { slices },
  )
  const others = Array.from({ length: count }, () => openSync('/dev/null', 'r'))
  const programEnd: number = pidfdGetfd(self, socket.peerEnd)
  socket.closePeerEnd()
  t.after(() => {
    for (const fd of [...others, programEnd]) closeSync(fd)
    socket.close()
  })
  return { socket, programEnd, turns: () => turns }
}

test('the end of a program with few descriptors is found immediately, and its number is remembered', t => {
  const { socket } = createUnnamedEnd(t, 0)
  const a = element(1n)
  assert.equal(socket.prepareWithdraw?.(), undefined, 'no record is unread')
  socket.post(record(a))
  assert.equal(socket.prepareWithdraw?.(), undefined)
  assert.equal(socket.withdraw(a).length, 1)
  // A new search would take several turns of the event loop.
  const more = Array.from({ length: 2 * FDS_PER_SLICE }, () => openSync('/dev/null', 'r'))
  t.after(() => more.forEach(closeSync))
  socket.post(record(a))
  assert.equal(socket.prepareWithdraw?.(), undefined)
  assert.equal(socket.withdraw(a).length, 1)
})

test('the end of a program with many descriptors is searched in slices, one per turn of the event loop', async t => {
  const many = 20 * FDS_PER_SLICE
  const { socket, turns } = createUnnamedEnd(t, many)
  const a = element(1n)
  socket.post(record(a))
  const found = socket.prepareWithdraw?.()
  assert.ok(found instanceof Promise)
  assert.equal(turns(), 0)
  await found
  assert.ok(turns() >= many / FDS_PER_SLICE - 1, `${turns()} turns`)
  const after = turns()
  assert.equal(socket.prepareWithdraw?.(), undefined)
  assert.equal(socket.withdraw(a).length, 1)
  socket.post(record(a))
  assert.equal(socket.prepareWithdraw?.(), undefined, 'its number is known from now on')
  assert.equal(turns(), after)
})

test('an end with a known number is searched only after a change of the number', async t => {
  const { socket, programEnd, turns } = createUnnamedEnd(t, 2 * FDS_PER_SLICE)
  const self = openProcess(process.pid) as ProcessHandle
  const a = element(1n)
  socket.setPeerEnd(self, programEnd)
  socket.post(record(a))
  assert.equal(socket.prepareWithdraw?.(), undefined)
  // Another number, which is not that of the end.
  socket.setPeerEnd(self, socket.peerEnd + 1)
  await socket.prepareWithdraw?.()
  assert.ok(turns() > 0)
  assert.equal(socket.withdraw(a).length, 1)
})

test('a driver’s record of maximum length can be taken, and the next record be read', () => {
  const setup = setUp()
  const a = element(0n)
  const long = new Uint8Array(DRIVER_RECORD_BYTES).fill(7)
  setup.socket.post({ element: a, bytes: long, type: -1 })
  setup.socket.post(record(a, 1))
  assert.deepEqual(
    setup.socket.take(1).map(({ bytes }) => bytes),
    [long],
  )
  assert.deepEqual(setup.read(), [hex(record(a, 1).bytes)])
  setup.close()
})
