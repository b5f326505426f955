/*
 * What `userdma top` computes and draws.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Look } from '../../src/cli/looks.ts'
import { afterKey, keysOf } from '../../src/cli/top/keys.ts'
import { ratesBetween, sorted } from '../../src/cli/top/rates.ts'
import { batchText, countText, screenLines, type View } from '../../src/cli/top/screen.ts'
import type { DeviceStat, QpStat, Stat } from '../../src/uapi/tool.ts'

const view: View = { order: 'P', reverse: false, first: 0, delay: 2, help: false }

const qp = (qpn: number, next: number, expected: number, more: Partial<QpStat> = {}): QpStat => ({
  device: 'rxe0',
  qpn,
  pid: 7,
  command: 'x',
  type: 'rc_qp',
  state: 'RTS',
  send: { pending: 1, depth: 16 },
  receive: { pending: 0, depth: 16 },
  psn: { next, expected },
  ...more,
})

const look = (time: number, qps: readonly QpStat[], bytes = 0): Look => {
  const device = {
    name: 'rxe0',
    address: '127.0.0.1',
    counters: { port_xmit_data: bytes / 4, port_rcv_data: 0 },
    hw_counters: { completer_retry_err: 0 },
  } as unknown as DeviceStat
  const stat = { pid: 5, sessions: 1, memory: { resident: 1 << 20, heap: 0 }, devices: [device] } as unknown as Stat
  return { time, stat, qps, waits: [{ device: 'rxe0', pid: 7, command: 'x', id: 'endless-rnr', text: 'it waits' }] }
}

test('rates are differences by time, across the wrap of PSNs', () => {
  const before = look(1000, [qp(1, 0xff_fffe, 10), qp(2, 100, 100)], 1000)
  const after = look(3000, [qp(1, 2, 14), qp(2, 5, 5), qp(3, 900, 0)], 9000)
  const rates = ratesBetween(before, after)
  assert.equal(rates.seconds, 2)
  assert.equal(rates.devices[0]!.bytesOut, 4000)
  // The second was reset meanwhile, the third is new.
  assert.deepEqual(
    rates.queuePairs.map(({ sent, received }) => [sent, received]),
    [
      [2, 2],
      [0, 0],
      [0, 0],
    ],
  )
  assert.deepEqual(rates.processes, [{ pid: 7, command: 'x', queuePairs: 3, sent: 2, received: 2 }])
  assert.equal(ratesBetween(undefined, after).devices[0]!.bytesOut, 0)
})

test('the cause is the failure, or for requests outstanding what the process waits for', () => {
  const failed = qp(2, 0, 0, { state: 'ERR', lastError: { text: 'SEND wr_id 7: REM_ACCESS' } as never })
  const idle = qp(3, 0, 0, { send: { pending: 0, depth: 16 } })
  const { queuePairs } = ratesBetween(undefined, look(0, [qp(1, 0, 0), failed, idle]))
  assert.deepEqual(
    queuePairs.map(({ cause }) => cause),
    ['it waits', 'SEND wr_id 7: REM_ACCESS', undefined],
  )
  assert.deepEqual(
    sorted(queuePairs, 'E').map(({ qpn }) => qpn),
    [2, 1, 3],
  )
})

test('the screen has its size, whatever names and numbers of queue pairs', () => {
  const qps = Array.from({ length: 500 }, (_, i) => qp(i, i, 0, { command: `\x1b[2J${'wide'.repeat(50)}` }))
  const rates = ratesBetween(undefined, look(0, qps))
  for (const [width, height] of [
    [80, 24],
    [20, 5],
    [300, 100],
  ] as const) {
    const lines = screenLines(rates, { ...view, first: 490, help: true }, width, height)
    assert.ok(lines.length <= height)
    assert.ok(lines.every(line => line.length <= width && !line.includes('\x1b')))
  }
  assert.equal(batchText(rates, view).match(/^ *7 {2}.*0x/gm)?.length, 500)
  assert.deepEqual([0, 999, 1000, 12345, 9.87654e6].map(countText), ['0', '999', '1k', '12.3k', '9.88M'])
})

test('keys order, scroll within the list, change the delay, and quit', () => {
  let current = view
  let effect: string | undefined
  const press = (text: string): View => {
    for (const key of keysOf(text)) ({ view: current, effect } = afterKey(current, key, 100, 10))
    return current
  }
  assert.equal(press('eR').reverse, true)
  assert.equal(current.order, 'E')
  assert.equal(press('\x1b[6~\x1b[B').first, 11)
  assert.equal(press('\x1b[F').first, 90)
  assert.equal(press('\x1b[H\x1b[A').first, 0)
  assert.equal(press('d0.5\r').delay, 0.5)
  assert.equal(press('d9\x1b').delay, 0.5)
  assert.equal(press('d0\r').delay, 0.1)
  assert.equal(press('d..\r').delay, 0.1)
  assert.equal(press('dq').typing, '')
  press('\x1bq')
  assert.equal(effect, 'quit')
})
