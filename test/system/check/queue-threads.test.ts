/*
 * Programs whose threads post to one queue at the same time (test/programs/check/queue_threads.c): each kind of queue
 * on each device that has it. Nothing is found where nothing is wrong, and an error names the request that has failed,
 * with the function that has posted it. The long form runs them often, and looks for races too. Programs that interrupt
 * a post (test/programs/check/interrupted_posts.c): nothing is found, nobody waits, and after a RESET all is known
 * again.
 */
import assert from 'node:assert/strict'
import { readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import {
  cleanEnvironment,
  lacking,
  ownProgram,
  runUserdma,
  type Scope,
  suiteScope,
  temporaryFolder,
  userdma,
} from '../programs.ts'
import { checkScript, type FindingJson } from './checking.ts'

const program = ownProgram('queue_threads')
const interruptedPosts = ownProgram('interrupted_posts')

const everywhere = ['datagrams', 'ud-receives', 'batches']
const ofConnections = [...everywhere, 'sends', 'writes', 'mixed', 'extended', 'receives', 'srq', 'xrc']
/** By driver; or of a program on the machine's own devices, here those of a daemon. */
const kinds: Readonly<Record<'rxe' | 'mlx5' | 'efa' | 'host', readonly string[]>> = {
  rxe: ofConnections,
  mlx5: ofConnections,
  efa: everywhere,
  host: ofConnections,
}

const check = {
  device: (scope: Scope, driver: string, script: string, options: readonly string[]) =>
    checkScript(scope, script, ['--buffers', 'all', '--device', `${driver}_0@127.0.0.1,driver=${driver}`, ...options]),
  async host(scope: Scope, _driver: string, script: string) {
    const output = join(temporaryFolder(scope), 'findings')
    const inner = [userdma, 'check', '--host', '--notes', '--json', '-o', output, '--', 'sh', '-c', script]
    const ended = await runUserdma(scope, ['run', '--private', '--', ...inner], { env: cleanEnvironment() })
    const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
    return { ...ended, found: lines.map(line => JSON.parse(line) as FindingJson).filter(one => 'id' in one) }
  },
}
/** True findings: `mixed` posts requests with too many elements, which rxe and mlx5 refuse with other errors. */
const expected: readonly string[] = ['bad-request', 'queue-full']
/** On rxe and mlx5 a datagram for a receive that is too short is dropped, and no request fails. */
const canFail = (place: string, kind: string): boolean => kind !== 'ud-receives' || place === 'efa'

const runs = casesOf(
  Array.from({ length: 10 }, (_, i) => i),
  i => i === 0,
)
/** Queues of mlx5 and of the machine's devices have the same kinds as rxe's. */
const places = casesOf(Object.entries(kinds), ([place]) => place === 'rxe' || place === 'efa')

/** By case: the numbers of its queue pairs, and what failed, as `thread_3 wr_id 4007`. */
const casesIn = (stdout: string) => {
  const cases = new Map<string, { readonly qpns: string[]; readonly failed: string[] }>()
  let current: { readonly qpns: string[]; readonly failed: string[] } | undefined
  for (const line of stdout.split('\n')) {
    const [, qpns, name] = /^queue pairs (.*) of (.*)$/.exec(line) ?? []
    const [, failed] = /^failed (.*)$/.exec(line) ?? []
    if (name !== undefined) {
      current = cases.get(name) ?? { qpns: [], failed: [] }
      cases.set(name, current)
      current.qpns.push(...qpns!.split(' '))
    } else if (failed !== undefined) current?.failed.push(failed)
  }
  return cases
}

/** What a finding says has failed. */
const toldBy = ({ text, moments }: FindingJson): string => {
  const [, wrId = '?'] = /(?:wr_id|block|request) (\d+): \w+_ERR/.exec(text) ?? []
  const frame = moments[0]?.frames.find(({ function: name }) => name.startsWith('thread_'))
  return `${frame?.function} wr_id ${wrId}`
}

describe('threads that post to one queue', { skip: lacking(program) }, () => {
  for (const [place, names] of places)
    for (const i of runs)
      describe(`${place}, run ${i}`, () => {
        const suite = suiteScope()
        const wrong = names.filter(name => canFail(place, name))
        let cases: ReturnType<typeof casesIn>
        let found: readonly FindingJson[]
        /** Findings about the queue pairs of a case that are no notes. */
        const foundIn = (name: string): readonly FindingJson[] =>
          found.filter(({ text }) => cases.get(name)!.qpns.some(qpn => text.includes(`QP 0x${qpn} `)))

        before(async () => {
          const words = [...names, ...wrong.map(name => `${name},wrong`)].join(' ')
          const races = i % 2 === 1 && place !== 'host' ? ['--races'] : []
          const result = await check[place === 'host' ? 'host' : 'device'](suite, place, `${program} ${words}`, races)
          assert.doesNotMatch(`${result.stdout}${result.stderr}`, /wrong:|order of the requests/)
          cases = casesIn(result.stdout)
          found = result.found.filter(({ severity, id }) => severity !== 'note' && !expected.includes(id))
        })

        for (const name of names)
          it(`${name}: nothing is found where nothing is wrong`, () => {
            assert.equal(cases.get(name)?.qpns.length, name === 'srq' ? 8 : 4)
            assert.deepEqual(
              foundIn(name).map(({ text }) => text),
              [],
            )
          })

        for (const name of wrong)
          it(`${name}: an error names its request, and the function that has posted it`, () => {
            const { failed } = cases.get(`${name},wrong`)!
            assert.equal(failed.length, 2)
            const errors = foundIn(`${name},wrong`).filter(({ severity }) => severity === 'error')
            // The message for a receive with a mistake fails too.
            const told = errors.filter(({ text }) => !text.includes('SEND wr_id 0:')).map(toldBy)
            assert.deepEqual(told.sort(), failed.sort())
          })

        it('no finding is about anything else', () => {
          const known = new Set([...cases.keys()].flatMap(foundIn))
          const others = found.filter(finding => !known.has(finding) && finding.id !== 'completions-unpolled')
          assert.deepEqual(
            others.map(({ text }) => text),
            [],
          )
        })
      })
})

describe('posts that do not end as they began', { skip: lacking(interruptedPosts) }, () => {
  const suite = suiteScope()
  const interruptions = ['signal', 'jump', 'exit', 'fork']
  let result: Awaited<ReturnType<typeof checkScript>>

  before(async () => {
    // Findings of one command with one stack are told together.
    const folder = temporaryFolder(suite)
    for (const kind of interruptions) symlinkSync(interruptedPosts, join(folder, kind))
    const script = interruptions.map(kind => `${folder}/${kind} ${kind}`).join(' && ')
    // This device knows requests by their positions alone.
    result = await checkScript(suite, script, ['--buffers', 'all', '--device', 'mlx5_0@127.0.0.1,driver=mlx5'])
  })

  for (const kind of interruptions)
    it(`${kind}: the only finding is the request that has failed after the RESET`, () => {
      const [, qpn, wrId] =
        new RegExp(`^${kind}: QP (\\w+) wr_id (\\d+): local protection error$`, 'm').exec(result.stdout) ?? []
      const found = result.found.filter(({ severity, text }) => severity !== 'note' && text.includes(`QP ${qpn} `))
      assert.deepEqual(
        found.map(({ id, text }) => `${id}: ${text.slice(0, text.indexOf(':'))}`),
        [`unknown-lkey: QP ${qpn} WRITE wr_id ${wrId}`],
      )
    })

  it('the program says what is not checked, unless the order is known', () => {
    const told = [...result.stderr.matchAll(/^userdma check: the order of the requests of a queue is unknown: /gm)]
    assert.equal(told.length, interruptions.length - 1)
  })
})
