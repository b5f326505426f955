/*
 * What `userdma check` says of queue pairs that are reset and connected again (test/programs/check/lives.c): requests
 * that complete with success and have no effect, and completions of a former life.
 */
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../programs.ts'
import { checkScript, type FindingJson, isOf } from './checking.ts'

const program = ownProgram('lives')
const mlx5 = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']

const LIVES = / was reset \S+ \w+ before, and its peer QP 0x\w+ was not: it has executed 4 packets of a former life/
const stale = (text: RegExp): RegExp => new RegExp(`^psn-mismatch error: QP 0x\\w+ ${text.source}.*${LIVES.source}`)
/** By case: what its errors and warnings say. */
const told: Readonly<Record<string, RegExp | undefined>> = {
  sends: stale(/SEND wr_id 1 has no effect, its peer answers it as a duplicate: .* at PSN 0x64 .* expected 0x68 then/),
  writes: stale(/WRITE wr_id 1 has no effect/),
  single: stale(/WRITE wr_id 1: RETRY_EXC_ERR: .* expected 0x68 then/),
  behind: /^psn-mismatch error: QP 0x\w+ WRITE wr_id 1 has no effect/,
  'both-ends': undefined,
  'peer-follows': undefined,
  'goes-on': undefined,
}
/** libmlx5 takes the completions out of the CQ. */
const toldOnRxe: typeof told = {
  'old-completion':
    /^polled-after-destroy warning: .* WRITE wr_id 1 of QP .* was polled after the queue pair was reset, while a new/,
  'old-drained': undefined,
}
const silent = Object.fromEntries(['both-ends', 'peer-follows', 'goes-on'].map(name => [name, undefined]))

const sentence = ({ id, severity, text, details }: FindingJson): string =>
  [`${id} ${severity}: ${text}`, ...details].join(' / ')

describe('lives of a connection', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  for (const [title, options, cases] of [
    ['rxe', [], { ...told, ...toldOnRxe }],
    ['mlx5', mlx5, told],
    ['rxe with lost packets', ['--fault', 'drop=10%,seed=3'], silent],
    ['mlx5 under torment', [...mlx5, '--torment', '2'], silent],
  ] as const)
    describe(title, () => {
      let found: readonly FindingJson[] = []
      before(async () => {
        const folder = temporaryFolder(suite)
        for (const name of Object.keys(cases)) symlinkSync(program, join(folder, name))
        const script = Object.keys(cases).map(name => `${folder}/${name} ${name} >&2;`)
        found = (await checkScript(suite, script.join(' '), options)).found
      })

      for (const [name, expected] of Object.entries(cases))
        it(name, () => {
          const own = found.filter(isOf(name)).filter(({ severity }) => severity !== 'note')
          if (expected === undefined) assert.deepEqual(own.map(sentence), [])
          else {
            assert.equal(own.length, 1, own.map(sentence).join('\n'))
            assert.match(sentence(own[0]!), expected)
          }
        })
    })
})
