/*
 * The table of `--torment` behaviour, src/spec/check/torment.ts.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  kindsOf,
  readTorment,
  TormentKinds,
  type TormentSetting,
  tormentKinds,
  tormentText,
} from '../../src/spec/check/torment.ts'
import { repoRoot } from '../paths.ts'

test('docs/how-to/torment.md has the rows of TormentKinds', () => {
  const rows = Object.entries(TormentKinds).map(([kind, { help, rule }]) => `| \`${kind}\` | ${help} | ${rule} |`)
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'torment.md'), 'utf8')
  assert.deepEqual(
    page.split('\n').filter(line => line.startsWith('| `')),
    rows,
  )
})

test('a setting is text', () => {
  const ids = ['completion/rxe0/sh.client/rc_qp1/send7', 'skew/rxe0/-/device/completions']
  const settings: readonly (readonly [text: string, setting: TormentSetting])[] = [
    ['7', { seed: 7, maxDecisions: Number.POSITIVE_INFINITY }],
    ['7:12', { seed: 7, maxDecisions: 12 }],
    [`7:only=${ids.join('+')}`, { seed: 7, maxDecisions: Number.POSITIVE_INFINITY, only: ids }],
    [
      `7:only=${ids[0]}~rxe0/sh/rc_qp2/receive1+${ids[1]}~200000`,
      {
        ...{ seed: 7, maxDecisions: Number.POSITIVE_INFINITY },
        only: [`${ids[0]}~rxe0/sh/rc_qp2/receive1`, `${ids[1]}~200000`],
      },
    ],
    ['0:3:kinds=bytes', { seed: 0, maxDecisions: 3, kinds: ['bytes'] }],
  ]
  for (const [text, setting] of settings) {
    assert.deepEqual(readTorment(text), setting)
    assert.equal(tormentText(setting), text)
  }
  for (const [text, message] of [
    ['seven', /a seed is an integer from 0 to 4294967295; SEED:COUNT/],
    ['7:only=completion', /"completion" is not the identity of a decision: write KIND\/DEVICE\/PROCESS\/OBJECT\/THING/],
    ['7:only=lost/rxe0/a/qp1/send1', /is not the identity of a decision/],
    ['7:only=bytes/rxe0/a/qp1/byte0~200001', /~MICROSECONDS \(at most 200000\)/],
    ['7:only=bytes/rxe0/a/qp1/byte0~soon', /is not the identity of a decision/],
    ['7:kinds=bytes,lost', /kind of torment "lost" is not one of delays, bytes, /],
  ] as const)
    assert.throws(() => readTorment(text), message)
})

test('kinds have groups', () => {
  assert.deepEqual(kindsOf(['bytes', 'bytes']), ['bytes'])
  assert.ok(
    kindsOf(['delays']).every(kind => tormentKinds.includes(kind)) && kindsOf(['delays']).includes('completion'),
  )
  assert.deepEqual(kindsOf(['late']), ['late'])
})
