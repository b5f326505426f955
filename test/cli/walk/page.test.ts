/*
 * The page of a walk (`--html`).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Outcome, WalkResult } from '../../../src/cli/walk/outcome.ts'
import { walkHtml } from '../../../src/cli/walk/page.ts'
import type { WalkPoint } from '../../../src/cli/walk/points.ts'
import type { Stage } from '../../../src/cli/walk/stage.ts'
import type { WalkKind } from '../../../src/cli/walk/walk-kinds.ts'
import type { Symbols } from '../../../src/tools/check/finding-text.ts'

const HOSTILE = `</style><script>"&'\u001b[31m\u202e`

/** Stacks are names of functions. */
const symbols = { framesOf: stack => stack.map(name => ({ function: name, file: 'a.c', line: 7 })) } as Symbols
const stage = {
  repeatCommand: ({ text }: WalkPoint) => ['userdma', 'run', '--', 'sh', '-c', `${text}\nexit`],
} as unknown as Stage

const result = (kind: WalkKind, text: string, outcome: Outcome, others: Partial<WalkResult> = {}): WalkResult => ({
  point: {
    kind,
    host: '',
    text,
    site: { program: HOSTILE, process: 1, phase: 'connects', stack: [`call ${HOSTILE}`] },
  } as unknown as WalkPoint,
  outcome,
  run: { result: { isTimedOut: outcome === 'hang', duration: 1200 }, records: [] } as unknown as WalkResult['run'],
  details: [],
  relapses: [],
  message: undefined,
  recovery: 0,
  ...others,
})
const confirmed = { times: 2, runs: 2 }

describe('the page of a walk', () => {
  const results = [
    result('calls', 'a', 'recovered', { recovery: 1234 }),
    result('links', 'b', 'ended', { message: HOSTILE }),
    result('links', 'c', 'swallowed', { confirmed: { times: 1, runs: 3 } }),
    result('links', `d ${HOSTILE}`, 'hang', { confirmed, details: [`waits ${HOSTILE}`] }),
  ]
  const pageOf = (interruptedBy?: string): string =>
    walkHtml(HOSTILE, { results, summary: `4 runs ${HOSTILE}\n`, interruptedBy }, symbols, stage)
  const page = pageOf()

  it('says that it was interrupted, and by what', () => {
    assert.doesNotMatch(page, /interrupted/)
    assert.match(pageOf('SIGINT'), /<title>[^<]* \(interrupted\)<\/title>/)
    assert.match(pageOf('SIGINT'), /<p class="cut">The walk was interrupted by SIGINT:/)
  })

  it('has every row by kind, what has findings first, and findings open', () => {
    const rows = [...page.matchAll(/<details class="(\w+)"( open)?><summary><b>([^<]*)<\/b><span>(\w)/g)]
    assert.deepEqual(
      rows.map(([, look, open, outcome, text]) => [look, open !== undefined, text, outcome?.slice(0, 9)]),
      [
        ['finding', true, 'd', 'hangs'],
        ['sometimes', false, 'c', 'swallowed'],
        ['ended', false, 'b', 'ended wit'],
        ['recovered', false, 'a', 'recovered'],
      ],
    )
    assert.deepEqual(
      [...page.matchAll(/<h2>([^<]*)/g)].map(([, text]) => text),
      ['links: 3 runs, 1 finding', 'calls: 1 run, 0 findings'],
    )
  })

  it('tells what the program waits for, how long it took, and the command of each row, whole', () => {
    assert.match(page, /<dt>Waits for<\/dt><dd><pre>waits /)
    assert.match(page, /<dt>Time to recover<\/dt><dd>1\.2 s</)
    assert.match(page, /<code class="again">userdma run -- sh -c 'a\nexit'<\/code>/)
    assert.equal(page.match(/<dt>Repeat it</g)?.length, 4)
  })

  it('escapes what comes from programs, and has no script, style or link but its own', () => {
    assert.ok(page.includes('&lt;/style&gt;&lt;script&gt;&quot;&amp;'))
    assert.doesNotMatch(page, /<script|<link|<img|style="|https?:|\son\w+="/)
    assert.equal(page.match(/<\/style>/g)?.length, 1)
    assert.match(page, /Content-Security-Policy" content="default-src 'none'; style-src 'sha256-/)
    // Outside of commands there is no control character.
    assert.doesNotMatch(page.replace(/<code class="again">[\s\S]*?<\/code>/g, ''), /[^\P{C}\n]/u)
  })
})
