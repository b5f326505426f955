/* scripts/compare-check: what counts as a difference between the findings of two runs. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'

const imported = (name: string) => import(pathToFileURL(join(repoRoot, 'scripts', name)).href)

const { byProgram } = (await imported('compare-check/normalise.mjs')) as {
  byProgram(report: string): ReadonlyMap<string, string>
}

interface Numbers {
  readonly pid: number
  readonly qps: readonly [own: string, peer: string]
  readonly port: number
  readonly time: string
  readonly folder: string
}
const one: Numbers = {
  pid: 7,
  qps: ['0x11f00a', '0x11f00b'],
  port: 33072,
  time: '49.9 ms',
  folder: '/home/a/checkout',
}
const another: Numbers = {
  pid: 8123,
  qps: ['0xe7e0c4', '0xe7e0c5'],
  port: 53186,
  time: '7.03 s',
  folder: '/srv/b',
}

const report = ({ pid, qps: [own, peer], port, time, folder }: Numbers, text = 'flags 0xc, 2 sends'): string =>
  [
    {
      number: pid,
      id: 'leak',
      text: `QP ${own} of process ${pid}, connected to QP ${peer} at 127.0.0.1, port ${port}: ${text}, ${time} before; QP ${own}`,
      program: { pid, command: 'leak' },
      time: pid / 3,
      moments: [
        {
          action: 'posted',
          owner: pid,
          frames: [
            {
              function: 'main',
              file: `${folder}/docs/findings/leak.c`,
              line: 9,
            },
          ],
        },
      ],
    },
    { omission: 'findings', count: 3 },
  ]
    .map(record => `${JSON.stringify(record)}\n`)
    .join('')

test('findings that differ in numbers of a run, times and folders are the same', () => {
  assert.deepEqual([...byProgram(report(one)).keys()], ['leak', ''])
  assert.deepEqual(byProgram(report(another)), byProgram(report(one)))
})

test('findings that differ in flags, counts, or in which numbers are equal are not the same', () => {
  const same = byProgram(report(one)).get('leak')
  assert.notEqual(byProgram(report(one, 'flags 0xd, 2 sends')).get('leak'), same)
  assert.notEqual(byProgram(report(one, 'flags 0xc, 3 sends')).get('leak'), same)
  assert.notEqual(byProgram(report({ ...one, qps: ['0x11f00a', '0x11f00a'] })).get('leak'), same)
  assert.notEqual(byProgram(report(one).replace('"line":9', '"line":10')).get('leak'), same)
})
