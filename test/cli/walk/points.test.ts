/*
 * The points of a walk, from what a run without failures has shown.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type PacketRole, planWalk } from '../../../src/cli/walk/points.ts'
import type { WalkSite } from '../../../src/cli/walk/site.ts'
import { type WalkKind, walkKindNames } from '../../../src/cli/walk/walk-kinds.ts'
import { parseRule } from '../../../src/faults/rules.ts'
import { site } from './site.ts'

const completion = (others: Partial<WalkSite> = {}): WalkSite =>
  site('WRITE', { target: 'completion', class: 'rc_qp', phase: 'transfers', ...others })
const plan = (
  kinds: readonly WalkKind[],
  sites: readonly WalkSite[],
  counts: Partial<Record<PacketRole, number>> = {},
  retries = 0,
) =>
  planWalk(
    sites,
    Object.entries(counts).map(([role, count]) => ({ host: '', role: role as PacketRole, count })),
    { kinds, stopped: 1000, hasRestarts: false, retries, varying: 0 },
  )
const texts = (...args: Parameters<typeof plan>): readonly string[] => plan(...args).points.map(({ text }) => text)

describe('the points of a walk', () => {
  it('give events to the next thread if there are several', () => {
    const notice = site('COMPLETION', { target: 'notice', class: 'comp_channel', site: '' })
    const turns = (isThreaded: boolean): number =>
      texts(['events'], [{ ...notice, ...(isThreaded && { isThreaded }) }]).filter(text => /next/.test(text)).length
    assert.deepEqual([turns(false), turns(true)], [0, 1])
  })

  it('are rules that parse, of every kind', () => {
    const sites = [
      site('mr.create'),
      site('rc_qp.modify', { phase: 'connects', first: 3 }),
      site('devx_obj.create', { phase: 'connects' }),
      site('SEND', { target: 'post', class: 'rc_qp' }),
      completion(),
      site('COMPLETION', { target: 'notice', class: 'comp_channel', site: '' }),
      site('CQ_ERR', { target: 'notice', class: 'async_fd', site: '', isThreaded: true }),
      site('ESTABLISHED', { target: 'notice', class: 'cm_channel', site: '' }),
    ]
    const { points } = plan(walkKindNames, sites, { REQ: 1, 'ONLY packet': 9 }, 540)
    assert.deepEqual(new Set(points.map(({ kind }) => kind)), new Set(walkKindNames))
    for (const { rule } of points) for (const factor of [1, 0.1]) parseRule(rule(factor))
  })

  it('take down one of the paths and of the routers at each step', () => {
    const sites = [site('mr.create', { phase: 'connects' }), completion(), completion({ name: 'SEND' })]
    const placesOf = (names: readonly string[], rule: string) =>
      names.map(name => ({ rule: `${rule}=${name}`, name, hasOtherWays: name !== 'edge' }))
    const outages = {
      routers: placesOf(['edge', 'spine'], 'router'),
      paths: placesOf(['edge:s1', 'edge:s2', 's2:z'], 'cable'),
    }
    const options = { kinds: ['links'] as const, stopped: 1000, hasRestarts: false, retries: 100, varying: 0, outages }
    const { points } = planWalk(sites, [], options)
    const routed = points.filter(({ rule }) => /router|cable/.test(rule(1)))
    assert.deepEqual(
      routed.map(({ rule, isHidden }) => [/,((?:router|cable)=.*)$/.exec(rule(1))![1], isHidden]),
      [
        ['cable=edge:s1:350ms', true],
        ['router=edge:350ms', false],
        ['cable=edge:s2:350ms', true],
        ['router=spine:350ms', true],
        ['cable=s2:z:350ms', true],
        ['router=edge:350ms', false],
      ],
    )
    assert.match(routed[1]!.text, /^edge goes down for longer than retries last at a?.*mr\.create$/)
    assert.equal(routed[0]!.lasts(0.1), 215)
  })

  it('are of each device if a program has queue pairs of several', () => {
    const on = (device: string, first = 1): WalkSite => site('rc_qp.modify', { phase: 'connects', device, first })
    assert.deepEqual(texts(['calls'], [on('rxe0')]), ['rc_qp.modify fails with ENOMEM'])
    const { points } = plan(['calls', 'devices'], [on('rxe0'), on('rxe1', 3), site('mr.create', { device: 'rdma_cm' })])
    const selected = points.map(({ text, rule }) => [
      / on (\w+)$/.exec(text)?.[1],
      ...(parseRule(rule(1)).device.match(/.+/) ?? []),
    ])
    assert.deepEqual(
      selected.map(([said, device]) => `${said} ${device}`).sort(),
      [
        ...Array.from({ length: 4 }, () => 'rxe0 rxe0'),
        ...Array.from({ length: 4 }, () => 'rxe1 rxe1'),
        ...Array.from({ length: 4 }, () => 'undefined undefined'),
      ].sort(),
    )
  })

  it('are no calls of a library that goes on without them', () => {
    const open = site('devx.command', {
      stack: ['/lib/libmlx5.so.1+0x1', '/lib/libibverbs.so.1+0x2 verbs_open_device'],
    })
    assert.deepEqual(texts(['calls'], [open]), [])
    assert.deepEqual(texts(['calls'], [site('devx.command')]), ['devx.command fails with ENOMEM'])
  })

  it('are no calls by which a library asks, on objects that it destroys in the same call', () => {
    const stack = ['/lib/librdmacm.so.1+0x1 ', '/lib/librdmacm.so.1+0x2 rdma_f', '/bin/p+0x1 ']
    const inOne = (names: readonly string[], own = stack) => names.map(name => site(`cm_id.${name}`, { stack: own }))
    const asks = inOne(['create', 'bind', 'destroy'])
    const { points, leftOut } = plan(['calls'], asks)
    assert.deepEqual(points, [])
    assert.deepEqual(
      leftOut.map(({ count }) => count),
      [2],
    )
    // The identifier that the program gets comes after the one with which the library asks.
    const both = [
      ...inOne(['create']).map(one => ({ ...one, count: 2 })),
      ...asks.slice(1),
      ...inOne(['listen'], [stack[0]!.replace('2', '3'), '/lib/librdmacm.so.1+0x4 rdma_f', stack[2]!]),
    ]
    assert.deepEqual(
      plan(['calls'], both).points.map(({ rule }) => rule(1).replace(/class.*(?=nth)/, '')),
      ['call=cm_id.create,nth=2,errno=ENOMEM', 'call=cm_id.listen,nth=1,errno=ENOMEM'],
    )
    // Refused, or of queue pairs that were not modified.
    const made = site('rc_qp.create', { count: 3, asked: 2 })
    assert.match(plan(['calls'], [made]).points[0]!.rule(1), /,nth=3,/)
    assert.deepEqual(plan(['calls'], [{ ...made, asked: 3 }]).points, [])
    // Another library makes and destroys it in one call, and does no more.
    const foreign = [
      '/lib/libibverbs.so.1+0x1 ibv_alloc_pd',
      '/lib/libfabric.so.1+0x1 ',
      '/lib/libfabric.so.1+0x2 fi_getinfo',
    ]
    const inCall = (name: string, others: Partial<WalkSite> = {}) =>
      site(name, {
        site: name,
        stack: [...foreign.slice(0, 1), `/lib/libfabric.so.1+0x${name.length} `, foreign[2]!, '/bin/p+0x1 '],
        ...others,
      })
    const getInfo = [inCall('pd.create'), inCall('pd.destroy')]
    assert.deepEqual(plan(['calls'], getInfo).points, [])
    for (const more of [inCall('rc_qp.modify'), inCall('SEND', { target: 'post', class: 'rc_qp' })])
      assert.ok(texts(['calls'], [...getInfo, more]).includes('pd.create fails with ENOMEM'))
    // In another process, another line, or without a library it is the program's.
    const [create, , destroy] = asks as [WalkSite, WalkSite, WalkSite]
    for (const others of [{ role: '0000bbbb' }, { site: '0000abce' }])
      assert.equal(plan(['calls'], [create, { ...destroy, ...others }]).points.length, 1)
    assert.equal(plan(['calls'], inOne(['create', 'destroy'], ['/bin/p+0x1 '])).points.length, 1)
  })

  it('name the process if there are several, and the first time in a phase', () => {
    const rules = (sites: readonly WalkSite[]) => plan(['devices'], sites).points.map(({ rule }) => rule(1))
    const second = site('mr.create', { process: 2, role: '0000bbbb', first: 4, phase: 'connects' })
    assert.match(rules([second])[0]!, /^call=mr\.create,class=mr,site=0000abcd,phase=connects,nth=1,fatal=qps$/)
    assert.match(rules([site('pd.create'), second])[3]!, /,role=0000bbbb,phase=connects,nth=1,fatal=qps$/)
  })

  it('of calls are one for each site, of links one for each phase before a connection', () => {
    const begun = [site('mr.create'), site('cq.create', { site: '0000abce' }), site('mr.create', { phase: 'connects' })]
    assert.deepEqual(texts(['calls'], begun), ['mr.create fails with ENOMEM', 'cq.create fails with ENOMEM'])
    const { points, leftOut } = plan(['links'], begun)
    assert.deepEqual(
      points.map(({ site: at }) => `${at?.name} ${at?.phase}`),
      [...Array(3).fill('mr.create begins'), ...Array(3).fill('mr.create connects')],
    )
    assert.deepEqual(leftOut, [{ kind: 'links', why: 'call sites in the same state as another', count: 1 }])
  })

  it('of packets are the first and last of each role, the first only of acknowledgements', () => {
    const { points, leftOut } = plan(['packets'], [], { REQ: 1, 'ONLY packet': 9, acknowledgement: 5, datagram: 3 })
    assert.deepEqual(
      points
        .filter(({ text }) => text.endsWith('is lost'))
        .map(({ text, rule }) => [text, rule(1).match(/nth=\d+/)?.[0]]),
      [
        ['the REQ is lost', 'nth=1'],
        ['the first ONLY packet is lost', 'nth=1'],
        ['the last ONLY packet is lost', 'nth=9'],
        ['the acknowledgement is lost', 'nth=1'],
      ],
    )
    assert.deepEqual(leftOut, [{ kind: 'packets', why: 'further packets of the same role', count: 11 }])
  })

  it('are cut at the most sites that a survey notes, and say so', () => {
    const sites = (count: number) => Array.from({ length: count }, (_, i) => site('mr.create', { site: `${i}` }))
    const isCut = (count: number): boolean => plan(['peers'], sites(count)).isCut
    assert.deepEqual([isCut(4095), isCut(4096)], [false, true])
  })

  it('take a link down for less and for longer than retries last, with shortened timers for less', () => {
    const [, short, long] = plan(['links'], [completion()], {}, 540).points
    const times = (factor: number) => [short, long].map(point => Number(/link=(\d+)ms/.exec(point!.rule(factor))?.[1]))
    assert.deepEqual(times(1), [50, 1010])
    assert.deepEqual(times(0.1), [14, 281])
    assert.equal(long!.lasts(1), 1010)
  })
})
