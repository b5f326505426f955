/*
 * Failures in the daemon's log and in tracing tools.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reportFailure } from '../../src/core/failures.ts'
import { createCore, openContext } from '../../src/core/index.ts'
import { createFailureReports } from '../../src/daemon/failures.ts'
import { ProgramLines } from '../../src/daemon/program-lines.ts'
import { createNullDevice } from '../../src/drivers/null/device.ts'
import { createCause } from '../../src/spec/check/causes.ts'
import type { Failure } from '../../src/spec/check/failures.ts'
import type { FailureRecord } from '../../src/spec/records.ts'
import { WcStatus, WrOpcode } from '../../src/spec/work.ts'

const failure: Failure = {
  kind: 'send',
  device: 'null0',
  qpn: 0x11,
  opcode: WrOpcode.values.RDMA_WRITE,
  wrId: 100n,
  status: WcStatus.values.LOC_PROT_ERR,
  cause: createCause('LKEY_UNKNOWN', { key: 0x753 }),
}

const setUp = () => {
  const core = createCore()
  const device = createNullDevice(core, 'null0')
  const lines: string[] = []
  const posted: [string, FailureRecord][] = []
  /** Microseconds. */
  const clock = { now: 0 }
  const reports = createFailureReports(
    core,
    () => clock.now,
    new ProgramLines(
      line => lines.push(line),
      () => clock.now,
    ),
    (tag, record) => posted.push([tag, record]),
  )
  return { core, device, lines, posted, clock, reports }
}

test('a failure is one log line with the process, and one record for tools', () => {
  const { device, lines, posted, reports } = setUp()
  const context = openContext(device, { isOpened: true })
  reports.setOwner(context, { pid: 4711, command: 'ib_write_bw', tag: 'some tag' })
  reportFailure(failure, device, context)
  assert.equal(lines.length, 1)
  assert.match(lines[0], /^userdma daemon: null0: QP 0x11 \(4711, ib_write_bw\) WRITE wr_id 100: LOC_PROT_ERR: .*0x753/)
  const [[tag, record]] = posted
  assert.deepEqual([tag, record.pid, record.command, record.device], ['some tag', 4711, 'ib_write_bw', 'null0'])
  assert.equal(record.failure.cause, 'LKEY_UNKNOWN')
  assert.deepEqual(reports.ownerOf(context)?.pid, 4711)
})

test('a note (the program moved the queue pair to ERR) is sent to tools, but not logged', () => {
  const { device, lines, posted } = setUp()
  reportFailure({ ...failure, cause: createCause('MODIFIED', {}) }, device, undefined)
  assert.equal(lines.length, 0)
  assert.equal(posted.length, 1)
})

// src/daemon/failures.ts limits log lines.
const CLIENT_BURST = 20
const CLIENT_LINES_PER_SECOND = 2
const TOTAL_BURST = 200
const SECOND = 1_000_000

test('the log lines of a client are rate-limited and counted; failures of other clients are logged', () => {
  const { device, lines, clock, reports } = setUp()
  const [flooding, other] = [1, 2].map(pid => {
    const context = openContext(device, { isOpened: true })
    reports.setOwner(context, { pid, command: `program${pid}`, tag: '' })
    return context
  })
  for (let i = 0; i < 1000; i++) reportFailure(failure, device, flooding)
  assert.equal(lines.length, CLIENT_BURST)
  reportFailure(failure, device, other)
  assert.match(lines.at(-1)!, /\(2, program2\)/)
  clock.now += SECOND
  lines.length = 0
  for (let i = 0; i < 1000; i++) reportFailure(failure, device, flooding)
  const omitted = (count: number) => `userdma daemon: ${count} more failures of process 1 (program1) were not logged`
  assert.equal(lines[0], omitted(1000 - CLIENT_BURST))
  assert.equal(lines.length, 1 + CLIENT_LINES_PER_SECOND)
  lines.length = 0
  reports.onDisconnect(2)
  assert.deepEqual(lines, [], 'no failure of the other client was omitted')
  reports.onDisconnect(1)
  assert.deepEqual(lines, [omitted(1000 - CLIENT_LINES_PER_SECOND)])
})

test('the log lines of all clients together are limited', () => {
  const { device, lines, reports } = setUp()
  for (let pid = 1; pid <= 30; pid++) {
    const context = openContext(device, { isOpened: true })
    reports.setOwner(context, { pid, command: 'program', tag: '' })
    for (let i = 0; i < CLIENT_BURST; i++) reportFailure(failure, device, context)
  }
  assert.equal(lines.length, TOTAL_BURST)
})

test('clients that connect and disconnect at a high rate log no more lines than the limit', () => {
  const { device, lines, clock, reports } = setUp()
  const [CLIENTS, FAILURES] = [1000, CLIENT_BURST + 1]
  for (let pid = 1; pid <= CLIENTS; pid++) {
    const context = openContext(device, { isOpened: true })
    reports.setOwner(context, { pid, command: 'program', tag: '' })
    for (let i = 0; i < FAILURES; i++) reportFailure(failure, device, context)
    reports.onDisconnect(pid)
  }
  assert.equal(lines.length, TOTAL_BURST)
  const logged = lines.filter(line => line.includes('WRITE')).length
  const counted = lines.filter(line => line.includes(' 1 more failures of process ')).length
  assert.equal(logged + counted, TOTAL_BURST)
  lines.length = 0
  clock.now += SECOND
  reportFailure(failure, device, undefined)
  const omitted = CLIENTS * FAILURES - logged - counted
  assert.equal(lines[0], `userdma daemon: ${omitted} more failures of other clients were not logged`)
  assert.equal(lines.length, 2, 'and the new failure')
})

test('a process that has disconnected is forgotten: its pid may be of another process later', () => {
  const { device, lines, reports } = setUp()
  const context = openContext(device, { isOpened: true })
  reports.setOwner(context, { pid: 4711, command: 'program', tag: '' })
  for (let i = 0; i < 30; i++) reportFailure(failure, device, context)
  reports.onDisconnect(4711)
  assert.equal(lines.length, CLIENT_BURST + 1, 'and a line about the omitted failures')
  lines.length = 0
  reports.onDisconnect(4711)
  assert.deepEqual(lines, [], 'the omitted failures were counted before')
  for (let i = 0; i < 30; i++) reportFailure(failure, device, context)
  assert.equal(lines.length, CLIENT_BURST)
})

test('of more than 1024 processes the oldest is forgotten, and its omitted failures are counted', () => {
  const { device, lines, clock, reports } = setUp()
  const REMEMBERED = 1024
  for (let pid = 1; pid <= REMEMBERED + 1; pid++) {
    const context = openContext(device, { isOpened: true })
    reports.setOwner(context, { pid, command: 'program', tag: '' })
    const failures = pid === 1 ? CLIENT_BURST + 1 : 1
    for (let i = 0; i < failures; i++) reportFailure(failure, device, context)
    clock.now += SECOND
  }
  const counts = lines.filter(line => line.includes('were not logged'))
  assert.deepEqual(counts, ['userdma daemon: 1 more failures of process 1 (program) were not logged'])
  const logged = CLIENT_BURST + REMEMBERED
  assert.equal(lines.length, logged + 1)
  reports.onDisconnect(2)
  assert.equal(lines.length, logged + 1, 'no failure of process 2 was omitted')
})

test('a newline in the name of a program begins no log line, and control characters are not logged', () => {
  const { device, lines, reports } = setUp()
  const context = openContext(device, { isOpened: true })
  reports.setOwner(context, { pid: 4711, command: 'a\nuserdma: \x1b[2J', tag: '' })
  for (let i = 0; i < CLIENT_BURST + 1; i++) reportFailure(failure, device, context)
  reports.onDisconnect(4711)
  assert.equal(lines.length, CLIENT_BURST + 1)
  for (const line of lines) assert.match(line, /^[^\p{C}]*4711[^\p{C}]*$/u)
})

test('a guest that starts again and again has a line of each cause in a minute, and leaves lines to others', () => {
  const { device, lines, clock, reports } = setUp()
  const own = openContext(device, { isOpened: true })
  reports.setOwner(own, { pid: 1, command: 'own', tag: '' })
  const restart = (guest: number, times: number): void => {
    for (let pid = 2; pid < 2 + times; pid++) {
      const context = openContext(device, { isOpened: true })
      reports.setOwner(context, { pid, command: 'program', tag: '', guest })
      for (const key of [1, 2])
        reportFailure({ ...failure, cause: createCause('LKEY_UNKNOWN', { key }) }, device, context)
      reportFailure({ ...failure, cause: createCause('MESSAGE_TOO_LONG', {}) }, device, context)
      reports.onDisconnect(pid)
    }
  }
  restart(1001, 1000)
  assert.equal(lines.length, 2)
  assert.match(lines[0]!, /null0: QP 0x11 \(2, program\) WRITE .*0x1/)
  clock.now += 60 * SECOND
  lines.length = 0
  restart(1001, 1)
  assert.match(lines[0]!, /\(1999 more such lines about programs of user 1001 were left out\)$/)
  // as many guests as there may be
  for (let guest = 2000; guest < 3000; guest++) restart(guest, 1)
  lines.length = 0
  reportFailure(failure, device, own)
  assert.match(lines.at(-1)!, /\(1, own\)/)
})
