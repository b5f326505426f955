/*
 * Requests without an answer in an outage: a note that names it if the program survives, else an error that names it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCause } from '../../../src/spec/check/causes.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { CheckedCall, ContextEnd } from '../../../src/spec/check/program-events.ts'
import { AsyncEventType, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import type { CheckerSources } from '../../../src/tools/check/detector.ts'
import { OUTAGES } from '../../../src/tools/check/findings/outages.ts'
import { workRequest } from './requests.ts'

const { RTR, RTS, ERR, RESET } = QpState.values
const { PORT_ERR, PORT_ACTIVE, GID_CHANGE } = AsyncEventType.values
const { SUCCESS, RETRY_EXC_ERR } = WcStatus.values
const SECOND = 1_000_000
const gidOf = (last: number): Uint8Array => new Uint8Array(16).fill(1).fill(last, 15)
const textOf = (last: number): string => `101:101:101:101:101:101:101:1${last.toString(16).padStart(2, '0')}`

/** Queue pair 1 of device 0 with GID 0 at index 0, connected to queue pair 2 of device 1 with GID 1. */
const scenario = (sources: Partial<CheckerSources> = {}) => {
  const found: Finding[] = []
  let now = 0
  const tables: (Uint8Array | undefined)[][] = [[gidOf(0)], [gidOf(1)]]
  const checker = new Checker(finding => found.push(finding), {
    now: () => now,
    deviceName: device => `rxe${device}`,
    deviceWithGid(gid) {
      const at = tables.findIndex(table => table.some(entry => entry?.[15] === gid[15]))
      return at < 0 ? undefined : at
    },
    postStack: () => ['post'],
    ...sources,
  })
  for (const device of [0, 1]) checker.event({ event: 'gids', device: device, gids: tables[device]! })
  const program = { pid: 1, command: 'client' }
  const qps = [1, 2, 3].map(qpNum => ({ id: qpNum, handle: qpNum, class: { name: 'rc_qp' } }))
  /** Queue pair 3 is made on device 1. */
  const call = (
    qp: number,
    method: string,
    args: Record<string, unknown> = {},
    refused?: { errno: number },
    changes: Partial<CheckedCall> = {},
  ): void => {
    const device = Math.min(qp, 2) - 1
    checker.event({
      event: 'called',
      time: now,
      device: `rxe${device}`,
      deviceNumber: device,
      context: device,
      program,
      class: 'rc_qp',
      method,
      object: qps[qp - 1]!,
      args,
      out: method === 'create' ? { qpNum: qp } : {},
      why: 'call',
      stack: [`${method} ${qp}`],
      ...(refused && { refused: { ...refused, reason: because`GID index 0 of port 1 is empty` } }),
      ...changes,
    })
  }
  const connect = (): void => {
    for (const qp of [1, 2]) {
      const address = { dgid: gidOf(2 - qp), sgidIndex: 0 }
      call(qp, 'modify', { state: RTR, address, destQpn: 3 - qp })
      call(qp, 'modify', { state: RTS, timeout: 10, retryCnt: 1 })
    }
  }
  for (const qp of [1, 2]) call(qp, 'create')
  connect()
  return {
    checker,
    found,
    call,
    connect,
    tables,
    wait(seconds: number) {
      now += seconds * SECOND
    },
    event: (device: number, type: number) =>
      checker.event({ event: 'portEvent', device, type, gids: tables[device] ?? [] }),
    fail(state: number | 'none' = RTS, peerDevice: number | undefined = 1, peerQpn = 2) {
      checker.event({
        event: 'failed',
        time: now,
        deviceNumber: 0,
        context: 0,
        program,
        peerDevice,
        failure: {
          kind: 'send',
          device: 'rxe0',
          qpn: 1,
          opcode: WrOpcode.values.RDMA_WRITE,
          wrId: 5n,
          status: RETRY_EXC_ERR,
          cause: createCause('NO_ANSWER', { tries: 2, retryCnt: 1 }),
          peer: { qpn: peerQpn, address: textOf(1), ...(peerDevice !== undefined && { state }) },
        },
      })
    },
    succeed: () =>
      checker.requests.completed(workRequest({ time: now, owner: 1 }), {
        status: SUCCESS,
        opcode: WcOpcode.values.RDMA_WRITE,
        bytes: 8,
        cq: 9,
        cqPosition: 1,
        solicited: false,
        qp: 1,
        message: undefined,
      }),
    end: (how: ContextEnd['how']) => checker.event({ event: 'contextEnds', context: 0, how, pendingSends: undefined }),
    told: () =>
      found.map(
        ({ id, severity, text }) => `${id} ${severity}: ${text.replace(/^.* is in \w+: |^.*0x2 at \S+: /, '')}`,
      ),
  }
}

type Scenario = ReturnType<typeof scenario>

const down = (device: number) => (s: Scenario) => {
  s.event(device, PORT_ERR)
  s.wait(0.5)
  s.fail()
}

test('an outage of the own port or that of the peer is named, and is a note when a later request succeeds', () => {
  for (const [device, name] of [
    [0, 'rxe0'],
    [1, "rxe1, the peer's,"],
  ] as const) {
    const s = scenario()
    down(device)(s)
    assert.deepEqual(s.told(), [], 'not known yet')
    s.wait(1)
    s.event(device, PORT_ACTIVE)
    s.succeed()
    assert.deepEqual(s.told(), [`no-answer note: the port of ${name} went down 500 ms before, and is still down`])
    s.end('exit')
    assert.equal(s.found.length, 1)
  }
})

test('a program that ends of an outage has an error; one that closes its device, or is killed meanwhile, a note', () => {
  for (const [how, severity] of [
    ['exit', 'error'],
    ['close', 'note'],
    ['kill', 'note'],
  ] as const) {
    const s = scenario()
    down(0)(s)
    s.end(how)
    assert.equal(s.found[0]?.severity, severity, how)
    assert.match(s.found[0]!.text, /the port of rxe0 went down 500 ms before/)
  }
  const late = scenario()
  down(0)(late)
  late.event(0, PORT_ACTIVE)
  late.wait(1)
  late.end('kill')
  assert.equal(late.found[0]?.severity, 'error', 'killed long after the outage')
})

test('an outage before the first try of a request, and of another device, explains nothing', () => {
  const s = scenario()
  s.event(0, PORT_ERR)
  s.event(0, PORT_ACTIVE)
  s.event(7, PORT_ERR)
  s.wait(60)
  s.fail()
  assert.deepEqual(
    s.found.map(({ id, severity }) => [id, severity]),
    [['no-answer', 'error']],
  )
})

test('a mistake of the connection stays an error in an outage; a peer that has given up does not', () => {
  const wrong = scenario()
  wrong.call(2, 'modify', { destQpn: 9 })
  down(0)(wrong)
  assert.equal(wrong.found[0]?.id, 'peer-connected-elsewhere')
  for (const { state, give } of [
    { state: 'none', give: (s: Scenario) => s.call(2, 'destroy') },
    { state: ERR, give: (s: Scenario) => s.call(2, 'modify', { state: ERR }) },
    { state: RESET, give: (s: Scenario) => s.call(2, 'modify', { state: RESET }) },
  ] as const) {
    const s = scenario()
    s.event(1, PORT_ERR)
    s.wait(0.1)
    give(s)
    s.fail(state)
    s.end('close')
    assert.equal(s.found[0]?.id, 'no-answer')
    assert.equal(s.found[0]?.severity, 'note')
    const before = scenario()
    give(before)
    before.wait(0.1)
    before.event(1, PORT_ERR)
    before.fail(state)
    assert.notEqual(before.found[0]?.id, 'no-answer', 'before the outage')
  }
})

test('an address that leaves is named, with its place now, at the failure and at a call that names its empty index', () => {
  for (const device of [0, 1]) {
    const s = scenario()
    const [gid] = s.tables[device]!
    s.tables[device]![0] = undefined
    s.event(device, GID_CHANGE)
    s.wait(2)
    s.fail(RTS, device === 1 ? undefined : 1)
    s.tables[device]![3] = gid
    s.event(device, GID_CHANGE)
    s.wait(1)
    // the second time it is no look any more
    for (const _ of [1, 2])
      s.call(device + 1, 'modify', { address: { dgid: gidOf(1), sgidIndex: 0 } }, { errno: Errno.ENODATA })
    s.end('close')
    const left = `the address ${textOf(device)} left GID index 0 of rxe${device}`
    const texts = s.found.map(({ text }) => text)
    assert.ok(
      texts.includes(
        `QP 0x${device + 1} names GID index 0, which is empty: ${left} 3.0 s before, and returned 1.0 s before, at GID index 3`,
      ),
      texts.join('\n'),
    )
    assert.ok(texts.some(text => text.endsWith(`${left} 2.0 s before, and has not returned`)))
    s.tables[device]![0] = gid
    s.event(device, GID_CHANGE)
    assert.equal(s.checker.need(OUTAGES).whoLeft(device, 0), undefined)
  }
})

test('an address that has moved to another device is told', () => {
  const s = scenario()
  s.tables[1] = [gidOf(1), gidOf(0)]
  s.tables[0] = [undefined]
  s.event(0, GID_CHANGE)
  s.event(1, GID_CHANGE)
  assert.match(s.checker.need(OUTAGES).whoLeft(0, 0) ?? '', /and is now GID index 1 of rxe1$/)
})

test('a peer that was destroyed is named as a queue pair of the process, with the place', () => {
  const s = scenario()
  s.call(2, 'destroy')
  s.wait(2)
  s.fail('none')
  assert.equal(s.found[0]?.id, 'no-peer-qp')
  assert.deepEqual(s.found[0].details, ["dest_qp_num 0x2 was this process's queue pair, destroyed 2.0 s before"])
  assert.deepEqual(s.found[0].moments[1], {
    action: 'the queue pair 0x2 was destroyed',
    time: 0,
    stack: ['destroy 2'],
    isPeersEnd: true,
  })
  const next = scenario()
  next.call(2, 'destroy')
  next.call(3, 'create')
  next.fail('none')
  assert.match(next.found[0]?.details[0] ?? '', /; its successor may be QP 0x3, created since$/)
})

test('a peer that a signal ended has died: a note if the program goes on, else a warning; one that has closed is an error', () => {
  const dead = { program: { pid: 2, command: 'server' }, why: 'close' } as const
  const ends: readonly (readonly [(s: Scenario) => void, true | undefined, string])[] = [
    [s => s.end('close'), true, 'note'],
    [s => s.succeed(), true, 'note'],
    [s => s.end('exit'), true, 'warning'],
    [s => s.end('close'), undefined, 'error'],
  ]
  for (const [end, wasKilled, severity] of ends) {
    const s = scenario()
    s.call(3, 'create', {}, undefined, { ...dead, why: 'call', out: { qpNum: 9 } })
    s.call(1, 'modify', { destQpn: 9 })
    s.call(3, 'destroy', {}, undefined, { ...dead, ...(wasKilled && { wasKilled }) })
    s.wait(0.1)
    s.fail('none', 1, 9)
    end(s)
    const [{ id, severity: told, text, advice } = {}] = s.found.filter(one => one.id !== 'leak')
    assert.deepEqual([id, told], ['no-peer-qp', severity])
    assert.equal(
      /the peer died: a signal ended process 2 \(server\) 100 ms before/.test(text ?? ''),
      wasKilled === true,
    )
    assert.equal(/why the signal came/.test(advice ?? ''), wasKilled === true)
  }
})

test('ten thousand outages and failures are bounded', () => {
  const s = scenario()
  for (let i = 0; i < 10_000; i++) {
    s.event(i % 2, i % 3 === 0 ? PORT_ERR : GID_CHANGE)
    s.tables[i % 2]![i % 5] = i % 7 === 0 ? undefined : gidOf(i % 200)
    s.fail()
  }
  s.end('close')
  assert.ok(s.found.length <= 1000)
})
