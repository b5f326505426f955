/*
 * The order in which a walk tries its points.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inTurns } from '../../../src/cli/walk/order.ts'
import { type PacketRole, planWalk, type WalkPoint } from '../../../src/cli/walk/points.ts'
import type { WalkSite } from '../../../src/cli/walk/site.ts'
import { type WalkKind, walkKindNames } from '../../../src/cli/walk/walk-kinds.ts'
import { programPhases } from '../../../src/spec/faults.ts'
import { site } from './site.ts'

/** Two processes, in each phase five lines with two calls each. */
const SITES: readonly WalkSite[] = ['0000aaaa', '0000bbbb'].flatMap(role =>
  programPhases.flatMap(phase =>
    Array.from({ length: 10 }, (_, i) =>
      site(i % 2 === 0 ? 'mr.create' : 'pd.create', { role, phase, site: `${role}${phase}${i >> 1}` }),
    ),
  ),
)
const COUNTS: Partial<Record<PacketRole, number>> = { REQ: 1, DREQ: 1, 'ONLY packet': 9, acknowledgement: 9 }

/** The first points of these kinds. */
const firstOf = (count: number, ...kinds: readonly WalkKind[]): readonly WalkPoint[] => {
  const counts = Object.entries(COUNTS).map(([role, all]) => ({ host: '', role: role as PacketRole, count: all }))
  const options = { kinds, stopped: 1000, hasRestarts: false, retries: 0, varying: 0 }
  const { points } = planWalk([...SITES, site('COMPLETION', { target: 'notice' })], counts, options)
  const ordered = inTurns(points, ({ site: at, what }) => at?.site || what)
  assert.deepEqual(new Set(ordered), new Set(points))
  assert.equal(ordered.length, points.length)
  return ordered.slice(0, count)
}
const different = (points: readonly WalkPoint[], key: (point: WalkPoint) => unknown): number =>
  new Set(points.map(key)).size

describe('the order of points', () => {
  it('has every kind in its first turn, and several phases', () => {
    const kinds = walkKindNames.filter(kind => kind !== 'posts' && kind !== 'completions')
    const first = firstOf(kinds.length, ...kinds)
    assert.deepEqual(
      first.map(({ kind }) => kind),
      kinds,
    )
    assert.ok(different(first, ({ phase }) => phase) >= 4)
  })

  for (const kind of ['calls', 'devices', 'links', 'peers'] as const)
    it(`of ${kind} has every phase in the first five, both processes and other failures in the first twenty`, () => {
      const first = firstOf(5, kind)
      assert.deepEqual(new Set(first.map(({ phase }) => phase)), new Set(programPhases))
      assert.equal(first[0]?.phase, 'transfers')
      const more = firstOf(20, kind)
      assert.equal(
        different(more, ({ site: at }) => at?.role),
        2,
      )
      if (kind !== 'calls') assert.ok(different(first, ({ text }) => text.replace(/ at .*/, '')) > 1)
    })

  it('has every line of a state before it has one twice', () => {
    // Links and peers have one point for a phase before a connection.
    const lines = (points: readonly WalkPoint[]): number =>
      different(points, ({ site: at }) => `${at?.role} ${at?.phase} ${at?.site}`)
    assert.equal(lines(firstOf(50, 'devices')), 50)
    assert.equal(lines(firstOf(50, 'calls')), 50)
  })

  it('of packets has every phase, and takes turns of their roles', () => {
    const first = firstOf(3, 'packets')
    assert.deepEqual(
      first.map(({ phase }) => phase),
      ['transfers', 'connects', 'closes'],
    )
    assert.equal(
      different(firstOf(4, 'packets'), ({ what }) => what),
      4,
    )
  })
})
