/*
 * Lent memory of a session as bars with accesses.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { AccessFlags } from '../../../src/spec/enums.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { SessionLends } from '../../../src/tools/record/lends.ts'

const { REMOTE_READ } = AccessFlags.values
const BASE = 0x7f00_0000_1000
const RKEY = 0x1234

const said = (time: number, event: object): SessionEvent & { readonly time: number } => ({
  kind: 'program',
  time,
  hasMore: false,
  text: JSON.stringify(event),
})

const lent = (time: number, lend: number, offset: number, length: number, more: object = {}) =>
  said(time, {
    ...{ event: 'lent', pid: 7, lend, start: BASE + offset, end: BASE + offset + length, rights: 1 },
    ...{ label: `request ${lend}`, qpn: 0, stack: ['a.c'], ...more },
  })

/** A region of 8 KiB whose addresses in requests begin at 0. */
const region = (): SessionEvent & { readonly time: number } => ({
  ...{
    kind: 'object',
    time: 0,
    change: 'created',
    object: 9,
    device: 0,
    context: 1,
    class: 'mr',
    handle: 2,
    number: RKEY,
  },
  ...{ method: 'create', why: 'call', program: { pid: 7, command: 'test' }, stack: [] },
  details: { uses: [], values: { start: `0x${BASE.toString(16)}`, iova: '0x0', rkey: RKEY } },
})

const accessed = (time: number, offset: number, length: number): SessionEvent & { readonly time: number } => ({
  ...{ kind: 'accessed', time, device: 0, rkey: RKEY, high: 0, low: offset, length, access: REMOTE_READ, qpn: 0x11 },
})

const lendsOf = (...events: readonly (SessionEvent & { readonly time: number })[]): SessionLends => {
  const lends = new SessionLends()
  for (const event of [region(), ...events]) lends.add(event)
  return lends
}

it('has the lends of the same bytes in one range, with the accesses that were lent and those that were not', () => {
  const { ranges, omitted } = lendsOf(
    accessed(1, 0, 8),
    lent(10, 1, 0, 64),
    accessed(11, 0, 64),
    said(12, { event: 'takenBack', pid: 7, lend: 1, stack: ['b.c'] }),
    accessed(13, 60, 8),
    lent(20, 2, 0, 64, { until: 25 }),
    accessed(21, 0, 8),
    accessed(26, 0, 8),
    said(30, { event: 'takenBack', pid: 7, lend: 2, stack: [] }),
  )
  assert.equal(omitted, 0)
  assert.deepEqual(
    ranges.map(({ pid, start, end }) => [pid, start - BASE, end - BASE]),
    [[7, 0, 64]],
  )
  const [{ bars, accesses }] = ranges as [(typeof ranges)[0]]
  assert.deepEqual(
    bars.map(({ from, to, label, stack, endStack }) => [from, to, label, stack, endStack]),
    [
      [10, 12, 'request 1', ['a.c'], ['b.c']],
      [20, 25, 'request 2', ['a.c'], []],
    ],
  )
  assert.deepEqual(
    accesses.map(({ time, start, isLate }) => [time, start - BASE, isLate]),
    [
      [11, 0, false],
      [13, 60, true],
      [21, 0, false],
      [26, 0, true],
    ],
  )
})

it('has an access in each range that it touches, and is not late if one of them is lent', () => {
  const { ranges } = lendsOf(
    lent(1, 1, 0, 8192),
    lent(2, 2, 4090, 16),
    said(3, { event: 'takenBack', pid: 7, lend: 2, stack: [] }),
    accessed(4, 4096, 4),
    said(5, { event: 'lendsEnd', pid: 7, lost: 0 }),
    accessed(6, 4096, 4),
  )
  assert.deepEqual(
    ranges.map(({ accesses }) => accesses.map(({ isLate }) => isLate)),
    [
      [false, true],
      [false, true],
    ],
  )
})

it('has what messages tell, until the same peer is told again, and takes any content', () => {
  const told = (time: number) =>
    said(time, { event: 'advertised', pid: 7, start: BASE, end: BASE + 64, qp: 12, device: 0, rkey: RKEY })
  const { ranges } = lendsOf(
    told(1),
    told(5),
    said(6, { event: 'lent', start: 'x' }),
    said(6, { event: 'lent', pid: 7, start: 5, end: 4 }),
    { kind: 'program', time: 7, hasMore: false, text: '{"event":"lent"' },
    { kind: 'program', time: 7, hasMore: true, text: '{"event":"lent"}' },
  )
  assert.deepEqual(
    ranges.map(({ bars }) => bars.map(({ from, to, rights }) => [from, to, rights])),
    [
      [
        [1, 5, undefined],
        [5, undefined, undefined],
      ],
    ],
  )
})
