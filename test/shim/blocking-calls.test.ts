/*
 * shim/blocking-calls.tsv: each call of the C library that may wait (cancellation points of pthreads(7), calls that a
 * signal interrupts by signal(7), locks) is interposed by the libraries that must know, or has a reason.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { requireTool } from '../tools.ts'

/** The column of each library. */
const columns = {
  clock: 'libuserdma_clock.so',
  waits: 'libuserdma_waits.so',
  recorder: 'libuserdma_host.so',
} as const

/** Why a library does not interpose a call. */
const reasons: Readonly<Record<string, string>> = {
  'no limit':
    'it waits without a time limit: a clock that skips ends nothing, and the keeper sees from /proc that it waits',
  'as read': 'the C library implements it by read(2), which has no limit',
  'between messages': 'its limit is looked at between messages only: it ends no wait',
  full: 'it waits while what it writes to is full: noting this would cost each write; without a stack, /proc tells the call',
  file: 'a disk or a device answers: that takes real time',
  'file lock': 'a lock of a file, of which no program of verbs is known to wait: /proc tells the call',
  requests: 'requests for disks (libaio, aio), which keep real time',
  'as sigsuspend': 'an old name, which the C library implements inside',
  'verbs only': 'the recorder observes calls of verbs, and their descriptors',
}

const [head = '', ...rows] = readFileSync(join(repoRoot, 'shim', 'blocking-calls.tsv'), 'utf8')
  .trimEnd()
  .split('\n')

for (const [i, [column, library]] of Object.entries(columns).entries())
  test(`${library} interposes the calls of its column, and the others have a reason`, t => {
    if (!requireTool('nm', t, 'binutils')) return
    assert.equal(head.split('\t')[i + 1], column)
    const { stdout } = spawnSync('nm', ['-D', '--defined-only', join(repoRoot, 'build', 'native', library)], {
      encoding: 'utf8',
    })
    const exported = new Set([...stdout.matchAll(/ \w (\w+)(?:@.*)?$/gm)].map(([, name]) => name))
    for (const row of rows) {
      const cells = row.split('\t')
      const [call = '', cell = ''] = [cells[0], cells[i + 1]]
      assert.equal(cell === 'interposed', exported.has(call), `${call}: ${cell}`)
      assert.ok(cell === 'interposed' || reasons[cell] !== undefined, `${call} has no reason: ${cell}`)
    }
  })

test('each call that a library notes or skips is listed once, in order', () => {
  const calls = rows.map(row => row.split('\t')[0])
  assert.deepEqual(calls, [...new Set(calls)].sort())
  const text = (name: string): string => readFileSync(join(repoRoot, 'shim', name), 'utf8')
  const noted = [
    ...text('waits/waits.c').matchAll(
      /^EXPORT \w+ (\w+)\([^)]*\)\n\{\n {4}(?:\w+ )?(?:void \*const mark|RETURN_(?:RECEIVED|SYSTEM_V|SLEPT)|return NOTED)/gm,
    ),
  ]
  assert.ok(noted.length > 20)
  for (const [, name = ''] of noted) assert.ok(name.startsWith('__') || calls.includes(name), name)
})
