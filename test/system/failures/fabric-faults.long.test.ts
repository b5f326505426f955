/*
 * Links of switches that fail, subnet managers that die and LIDs that change: by fault rules, and as points of
 * `userdma walk`.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { lacking, runUserdma, temporaryFolder } from '../programs.ts'

const DEVICES = ['mlx5_0@127.0.0.2', 'mlx5_1@127.0.0.3'].flatMap(name => [
  '--device',
  `${name},driver=mlx5,layer=infiniband`,
])
const TWO_WAYS = ['--fabric', 'fat-tree,leaves=2,spines=2']
const ONE_WAY = ['--fabric', 'links=a:b']

/** The program has no time limit: who gets no answer polls for ever. */
const PINGPONG = [
  'sh',
  '-c',
  `timeout 60 ibv_rc_pingpong -n 150 -d mlx5_0 & sleep 1
   timeout 60 ibv_rc_pingpong -n 150 -d mlx5_1 localhost; s=$?; kill $! 2> /dev/null; wait; exit $s`,
]
const RPING = [
  'sh',
  '-c',
  `rping -s -a 127.0.0.2 -C 3 & sleep 1
   rping -c -a 127.0.0.2 -C 3; s=$?; kill $! 2> /dev/null; wait; exit $s`,
]

const RETRIES = /transport retry counter exceeded/

const underRule = async (t: TestContext, rule: string, fabric: readonly string[], program: readonly string[]) => {
  const words = ['run', '--private', '--clock', 'skip', ...DEVICES, ...fabric, '--fault', rule, '--', ...program]
  const { status, stdout, stderr } = await runUserdma(t, words)
  return { status, text: stdout + stderr }
}

describe('a fault rule', { skip: lacking('ibv_rc_pingpong', 'rping', 'sminfo') }, () => {
  const atSend = 'completion=SEND,device=mlx5_1,nth=100'

  it('pulls the cable between two switches: connections go on by another way, or when it is back', async t => {
    for (const [effect, fabric] of [
      ['cable=way', TWO_WAYS],
      ['cable=b:a:20ms', ONE_WAY],
    ] as const) {
      const { status, text } = await underRule(t, `${atSend},${effect}`, fabric, PINGPONG)
      assert.equal(status, 0, text)
      assert.doesNotMatch(text, RETRIES)
    }
    const { status, text } = await underRule(t, `${atSend},cable=a:b`, ONE_WAY, PINGPONG)
    assert.notEqual(status, 0)
    assert.match(text, RETRIES)
  })

  it('changes the LID of a port: messages to the old one are lost', async t => {
    const { status, text } = await underRule(t, `${atSend},gid=1`, TWO_WAYS, PINGPONG)
    assert.notEqual(status, 0)
    assert.match(text, RETRIES)
  })

  it('lets the subnet manager die: nobody answers, and connections that there are go on', async t => {
    const resolving = 'program=rping,call=cm_id.resolveAddress,manager=600s'
    const asks = ['sh', '-c', `${RPING[2]!.replace('exit $s', 'sminfo; exit $s')}`]
    const refused = await underRule(t, resolving, TWO_WAYS, asks)
    assert.notEqual(refused.status, 0)
    assert.match(refused.text, /ROUTE_ERROR/)
    assert.doesNotMatch(refused.text, /SMINFO_/)
    const connected = await underRule(t, `${atSend},manager=600s`, TWO_WAYS, PINGPONG)
    assert.equal(connected.status, 0, connected.text)
  })

  it('names switches and a manager that there are', async t => {
    for (const [rule, fabric, message] of [
      ['cable=a:c', ONE_WAY, /no link of --fabric is between switches "a" and "c"; there are a:b/],
      ['manager=1s', ['--fabric', 'links=a:b,manager=none'], /the switches have no subnet manager/],
    ] as const) {
      const { status, text } = await underRule(t, rule, fabric, ['true'])
      assert.notEqual(status, 0)
      assert.match(text, message)
    }
  })
})

interface Row {
  readonly outcome: string
  readonly text: string
  readonly rule: string
  readonly message?: string
}

/** Walks the links; the results by what fails. */
const walk = async (t: TestContext, fabric: readonly string[], program: readonly string[], points: number) => {
  const report = join(temporaryFolder(t), 'report')
  const limits = ['--kinds', 'links', '--points', `${points}`, '--time-limit', '3600']
  const words = ['walk', ...DEVICES, ...fabric, ...limits, '--json', '-o', report, '--', ...program]
  const { status, stderr } = await runUserdma(t, words)
  assert.ok(status === 0 || status === 65, stderr)
  const rows = readFileSync(report, 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line) as Row)
  return (failure: string): readonly Row[] => rows.filter(({ text }) => text.startsWith(failure))
}

const outcomesOf = (rows: readonly Row[]): readonly string[] => [...new Set(rows.map(({ outcome }) => outcome))].sort()

describe('a walk on switches', { skip: lacking('ibv_rc_pingpong', 'rping') }, () => {
  it('finds nothing in ibv_rc_pingpong that has another way', async t => {
    const of = await walk(t, TWO_WAYS, PINGPONG, 30)
    for (const failure of ['a link between switches goes down for good', 'the subnet manager dies']) {
      const rows = of(failure)
      assert.ok(rows.length > 0, failure)
      assert.deepEqual(outcomesOf(rows), ['recovered'], failure)
    }
    // The other end polls for ever for a message of one that has ended.
    const moved = of('the LID changes').filter(({ outcome }) => outcome === 'stale' || outcome === 'hang')
    assert.ok(moved.some(({ message }) => RETRIES.test(message ?? '')))
  })

  it('ends ibv_rc_pingpong that has no other way, and rping that gets no path', async t => {
    const gone = (await walk(t, ONE_WAY, PINGPONG, 20))('a link between switches goes down for good')
    assert.ok(gone.some(({ outcome, message }) => outcome !== 'recovered' && RETRIES.test(message ?? '')))
    const dies = (await walk(t, TWO_WAYS, RPING, 40))('the subnet manager dies')
    assert.ok(dies.some(({ outcome, message }) => outcome === 'ended' && /ROUTE_ERROR/.test(message ?? '')))
    assert.ok(dies.some(({ outcome }) => outcome === 'recovered'))
  })
})
