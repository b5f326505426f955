/*
 * 2,000 children of a program whose other threads open and close devices. shim.test.ts has the states of such children
 * one by one (half_copied).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { scratchFolder } from '../tools.ts'
import { startFakeDaemon } from './fake-daemon.ts'
import { compileScenarios, currentShim, runProgram, shimIsPossible } from './program.ts'

test('2,000 children open a device while other threads open and close devices', async t => {
  if (!shimIsPossible(t)) return
  const folder = scratchFolder()
  const daemon = startFakeDaemon(folder, 0)
  try {
    // Four programs: each may take 30 seconds.
    for (let program = 0; program < 4; program++) {
      const { status, stdout, stderr } = await runProgram(compileScenarios(folder), ['many_forks'], {
        PATH: process.env.PATH,
        LD_PRELOAD: currentShim(folder),
        USERDMA_SOCKET: daemon.socket,
      })
      assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' })
    }
  } finally {
    daemon.crash()
  }
})
