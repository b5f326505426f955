/*
 * A walk on a stage without programs: runs without failures, points, confirmations.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { WalkRun } from '../../../src/cli/walk/outcome.ts'
import type { WalkPoint } from '../../../src/cli/walk/points.ts'
import type { WalkSite } from '../../../src/cli/walk/site.ts'
import type { Stage } from '../../../src/cli/walk/stage.ts'
import { walk } from '../../../src/cli/walk/walk.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { site } from './site.ts'

const { RTR } = QpState.values

const runOf = (sites: readonly WalkSite[], others: Partial<WalkRun> = {}): WalkRun => ({
  result: {
    failure: undefined,
    output: '',
    stdout: '',
    stderr: '',
    status: 0,
    signal: null,
    isTimedOut: false,
    duration: 10,
  },
  sites,
  counts: [],
  ports: [],
  records: [],
  findings: [],
  failed: undefined,
  facts: { told: [], retries: 0, relapses: [] },
  injected: 1,
  waits: [],
  left: [],
  ...others,
})

/** A walk whose runs are `run`, by point and number. */
const walkWith = async (
  run: (point: WalkPoint | undefined, number: number) => WalkRun,
  kind: 'calls' | 'devices' = 'calls',
) => {
  const points: (string | undefined)[] = []
  const stage: Stage = {
    async run(point) {
      points.push(point?.text)
      return run(point, points.length)
    },
    repeatCommand: () => [],
  }
  const limits = {
    kinds: [kind],
    points: 100,
    seconds: 60,
    hang: undefined,
    isConfirmed: true,
    factor: 1,
    jobs: 1,
    stopped: 1000,
  }
  const walked = await walk(
    stage,
    { ...limits, first: () => false, lineOf: ({ site }) => site?.site ?? '', stop: new AbortController().signal },
    { async planned() {}, async finished() {} },
  )
  return { walked: walked!, points }
}

describe('a walk', () => {
  const sites = [site('mr.create'), site('pd.create')]

  it('makes two runs without failures if they are alike', async () => {
    const { walked, points } = await walkWith(() => runOf(sites))
    assert.deepEqual(points.slice(0, 3), [undefined, undefined, 'mr.create fails with ENOMEM'])
    assert.equal(walked.plan.varying, 0)
  })

  it('makes a third if they differ; its points are those that two runs have, whichever process comes first', async () => {
    const peer = site('mr.create', { role: '0000bbbb', process: 2 })
    const rare = site('ah.create')
    const runs = [
      [...sites, rare, peer],
      [{ ...peer, process: 1 }, ...sites.map(one => ({ ...one, process: 2 }))],
    ]
    const { walked, points } = await walkWith((_point, number) => runOf(runs[number - 1] ?? runs[1]!))
    assert.equal(points.filter(text => text === undefined).length, 3)
    assert.deepEqual(
      walked.plan.points.map(({ text, site: at }) => `${at?.process} ${text}`),
      ['1 mr.create fails with ENOMEM', '1 pd.create fails with ENOMEM', '2 mr.create fails with ENOMEM'],
    )
    assert.equal(walked.plan.varying, 1)
  })

  it('takes a program for one that makes up for a failure by the run that needed least', async () => {
    const often = [site('mr.create', { count: 4 })]
    const { walked } = await walkWith((point, number) =>
      runOf(point === undefined && number === 1 ? often : [site('mr.create', { count: point === undefined ? 3 : 4 })]),
    )
    assert.deepEqual(
      walked.results.map(({ outcome }) => outcome),
      ['recovered'],
    )
  })

  it('takes a failed request for an event for repeated if a later one succeeds', async () => {
    for (const [count, outcome] of [
      [2, 'recovered'],
      [1, 'swallowed'],
    ] as const) {
      const { walked } = await walkWith(point =>
        runOf([site('cq.reqNotify', { count: point === undefined ? 9 : count })]),
      )
      assert.deepEqual(
        walked.results.map(result => result.outcome),
        [outcome],
      )
    }
  })

  it('takes a program for one that makes up for a failed modification if it destroys the object instead', async () => {
    for (const [destroyed, isGivenUp, outcome] of [
      [2, false, 'recovered'],
      [1, false, 'swallowed'],
      [1, true, 'recovered'],
    ] as const) {
      const facts = { told: [], retries: 0, relapses: [], ...(isGivenUp && { isGivenUp }) }
      const { walked } = await walkWith(point =>
        runOf([site('rc_qp.modify'), site('rc_qp.destroy', { count: point === undefined ? 1 : destroyed })], { facts }),
      )
      assert.deepEqual(
        walked.results.map(result => result.outcome),
        [outcome],
      )
    }
  })

  it('takes a program that was told of a removed device for one that swallows it if it has made fewer requests', async () => {
    const sendSite = (count: number) => site('SEND', { target: 'completion', class: 'rc_qp', count })
    for (const [count, outcome] of [
      [20, 'recovered'],
      [19, 'swallowed'],
    ] as const) {
      const { walked } = await walkWith(
        point =>
          point === undefined
            ? runOf([sendSite(20)])
            : runOf([sendSite(count)], { facts: { told: ['DEVICE_REMOVAL'], retries: 0, relapses: [] } }),
        'devices',
      )
      assert.ok(walked.results.length > 0)
      assert.deepEqual([...new Set(walked.results.map(result => result.outcome))], [outcome])
    }
  })

  it('takes a program for stale that went on with what is gone, not if its peer has ended and it says so', async () => {
    const at = (action: string, time: number) => ({ action, time, stack: [] })
    const finding = (others: Partial<Finding>): Finding => ({
      number: 1,
      id: 'no-peer-qp',
      severity: 'error',
      text: 'QP 0x11 SEND: RETRY_EXC_ERR',
      details: [],
      device: 'rxe0',
      time: 100,
      moments: [at('posted', 80), { ...at('closed with its device', 60), isPeersEnd: true }],
      objects: [{ name: 'QP 0x11', history: [at('created', 10), { ...at('modified', 20), state: RTR }] }],
      ...others,
    })
    const late = { name: 'QP 0x11', history: [at('created', 10), { ...at('modified', 70), state: RTR }] }
    const failed = { ...runOf([]).result, failure: 'exit status 1', status: 1, stderr: 'lost the peer\n' }
    for (const [found, outcome] of [
      [finding({}), 'ended'],
      // It was connected to what had ended before.
      [finding({ objects: [late] }), 'stale'],
      [finding({ moments: [at('posted', 80)] }), 'stale'],
      [finding({ id: 'event-ignored', moments: [] }), 'stale'],
      [finding({ id: 'event-ignored', moments: [], severity: 'note' }), 'ended'],
    ] as const) {
      const { walked } = await walkWith(point =>
        point === undefined
          ? runOf([site('mr.create')])
          : runOf([site('mr.create')], { findings: [found], result: failed }),
      )
      assert.deepEqual(
        walked.results.map(result => result.outcome),
        [outcome],
      )
    }
  })

  it('takes a program for degraded that goes on with failing completions, unless it does so without a failure', async () => {
    const relapses = (pid: number) => [{ pid, program: 'p', text: `QP 0x1${pid} of process ${pid}`, stack: ['f'] }]
    const walkOf = async (isUsual: boolean) => {
      const { walked } = await walkWith((point, number) => ({
        ...runOf([site('mr.create', { count: 2 })]),
        facts: { told: [], retries: 0, relapses: point !== undefined || isUsual ? relapses(number) : [] },
      }))
      return walked.results.map(({ outcome, details, relapses: all }) => [outcome, details.length, all.length])
    }
    assert.deepEqual(await walkOf(false), [['degraded', 1, 1]])
    assert.deepEqual(await walkOf(true), [['swallowed', 0, 0]])
  })

  it('takes no program for one that swallows what a library asks or prepares', async () => {
    const outcomeOf = async (name: string, ...frames: readonly string[]) => {
      const stack = ['/lib/libmlx5.so.1+0x1 ', ...frames.map(frame => `/lib/libmlx5.so.1+0x2 ${frame}`), '/bin/p+0x1 ']
      const { walked } = await walkWith(() => runOf([site(name, { stack })]))
      return walked.results.map(({ outcome }) => outcome).join()
    }
    assert.equal(await outcomeOf('uar.create', 'verbs_open_device'), 'recovered')
    assert.equal(await outcomeOf('uar.create', 'ibv_create_qp'), 'swallowed')
    assert.equal(await outcomeOf('devx.command', 'ibv_query_device_ex'), 'recovered')
    assert.equal(await outcomeOf('devx.command', 'mlx5dv_devx_general_cmd'), 'swallowed')
    assert.equal(await outcomeOf('device.open', 'verbs_open_device'), 'swallowed')
  })

  it('makes a run that cannot begin once more', async () => {
    const { walked } = await walkWith((_point, number) => {
      if (number === 3) throw new Error('no daemon')
      return runOf(sites)
    })
    assert.equal(walked.results.length, 2)
    await assert.rejects(
      walkWith((_point, number) => {
        if (number >= 3) throw new Error('no daemon')
        return runOf(sites)
      }),
      /no daemon/,
    )
  })
})
