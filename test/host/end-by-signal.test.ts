/*
 * The end of a process by a signal that it sends to itself.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { constants } from 'node:os'
import { describe, it } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { scratchFolder } from '../tools.ts'

const { O_NONBLOCK } = fs.constants
const module = new URL('../../src/host/end-by-signal.js', import.meta.url).href

/** Of the program, if the signal does not end it. */
const EXIT_STATUS = 7

/**
 * Runs a program that prints on standard error and ends by a signal. Returns the program's exit status, the flags of
 * its standard error, and the files that it left.
 */
const endBy = (signal: NodeJS.Signals) => {
  const program = `
    import { endBySignal } from '${module}'
    process.stderr.write('last words')
    process.exitCode = ${EXIT_STATUS}
    endBySignal('${signal}')`
  const script =
    'ulimit -c unlimited; "$0" --input-type=module -e "$1"; echo $?; grep -oP "flags:\\t\\K.*" /proc/self/fdinfo/2; ls'
  const options = { encoding: 'utf8', cwd: scratchFolder() } as const
  const { stdout, stderr } = spawnSync('sh', ['-c', script, process.execPath, program], options)
  const [status, flags = '', ...files] = stdout.trimEnd().split('\n')
  return { status: Number(status), flags: Number.parseInt(flags, 8), files, stderr }
}

describe('a process that ends by a signal', { skip: !hasNative() && 'needs native calls' }, () => {
  // Node.js ignores SIGPIPE, and SIGUSR1 starts its debugger.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL', 'SIGPIPE', 'SIGUSR1', 'SIGSEGV'] as const)
    it(`leaves its pipes blocking, and no core: ${signal}`, () => {
      const { status, flags, files, stderr } = endBy(signal)
      assert.equal(status, 128 + constants.signals[signal])
      assert.equal(flags & O_NONBLOCK, 0)
      assert.deepEqual(files, [])
      assert.match(stderr, /^last words/)
    })

  it('has its exit status if the signal does not end it', () => {
    assert.equal(endBy('SIGCHLD').status, EXIT_STATUS)
  })
})
