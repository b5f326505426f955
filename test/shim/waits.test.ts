/*
 * The preload library of `userdma check --races` (shim/waits), in programs without RDMA.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { compileC, currentBuild, requireTool, scratchFolder } from '../tools.ts'
import { runProgram } from './program.ts'

const folder = scratchFolder()

test('a library’s constructor may wait for a thread', async t => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return
  const source = join(repoRoot, 'test/shim/waiting_constructor.c')
  const library = compileC(join(folder, 'library.so'), [source], ['-shared', '-fPIC', '-lpthread'])
  const program = compileC(join(folder, 'program'), [source], ['-DPROGRAM', '-ldl'])
  const LD_PRELOAD =
    currentBuild('native/libuserdma_waits.so', 'shim/waits') ??
    compileC(
      join(folder, 'waits.so'),
      [join(repoRoot, 'shim/waits/waits.c')],
      ['-shared', '-fPIC', '-ldl', '-lpthread'],
    )
  const ended = await runProgram(program, [library], { LD_PRELOAD })
  assert.deepEqual(ended, { status: 0, stdout: '', stderr: '' })
})
