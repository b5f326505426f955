/*
 * Calls with the largest arguments make only their caller wait: between two polls of its devices, or two turns of its
 * event loop, the daemon works for at most 5 ms (docs/decisions/others-wait.md).
 */
import assert from 'node:assert/strict'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { lacking, ownProgram, run, startDaemon, temporaryFolder } from '../programs.ts'

const program = ownProgram('longest_calls')
const driver = 'test/system/turns/turns.mjs'
/**
 * Microseconds of processor time. The least of some runs counts: cold caches and collected garbage are not the call's.
 */
const MOST = 5000
const RUNS = 3

describe('calls with the largest arguments', { skip: lacking(program) }, () => {
  for (const [device, option] of [
    ['rxe0', 'rxe0@127.0.0.1'],
    ['mlx5_0', 'mlx5_0@127.0.0.1,driver=mlx5'],
    ['efa_0', 'efa_0@127.0.0.1,driver=efa'],
  ] as const)
    it(`do not let others wait: ${device}`, async t => {
      const file = join(temporaryFolder(t), 'turns')
      writeFileSync(file, '')
      truncateSync(file, 8 + 64 * 8)
      const daemon = await startDaemon(t, {
        devices: ['turns0', option, 'rxe9@127.0.0.9'],
        options: ['--driver', driver, '--ignore-memlock'],
        wrapper: ['env', `TURNS=${file}`],
      })
      const least = new Map<string, number>()
      for (let i = 0; i < RUNS; i++) {
        writeFileSync(file, '')
        truncateSync(file, 8 + 64 * 8)
        // A group: if it is killed at its limit, so is its other process, which else never ends.
        const { stdout } = await run(t, program, [device, 'rxe9', file], { env: daemon.env, detached: true })
        for (const [, duration, call = ''] of stdout.matchAll(/^(\d+) (.*)$/gm))
          least.set(call, Math.min(Number(duration), least.get(call) ?? Number.POSITIVE_INFINITY))
      }
      t.diagnostic(Array.from(least, ([call, duration]) => `${call}: ${duration}`).join('; '))
      assert.ok(least.size > 15, [...least.keys()].join())
      assert.deepEqual(
        [...least].filter(([, duration]) => duration > MOST),
        [],
      )
    })
})
