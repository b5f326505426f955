/*
 * Under valgrind a buffer's received bytes are initialised, its other bytes are not.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram, removeDevice, run, start, startDaemon, userdma } from '../programs.ts'

const program = ownProgram('initialised')
/** Exit status if valgrind reports an error. */
const ERROR_STATUS = 9

describe('under valgrind', { skip: lacking(program, 'valgrind') }, () => {
  for (const [mode, isReported] of [
    ['recv', false],
    ['extended', false],
    ['read', false],
    ['write', false],
    ['beyond', true],
  ] as const) {
    const title = isReported
      ? 'bytes that have not arrived are uninitialised'
      : 'bytes that have arrived are initialised'
    it(`${title} (${mode})`, async t => {
      const daemon = await startDaemon(t)
      const { stdout, stderr, status } = await run(t, 'valgrind', [`--error-exitcode=${ERROR_STATUS}`, program, mode], {
        env: daemon.env,
      })
      assert.equal(stdout, 'arrived\n', stderr)
      assert.equal(status, isReported ? ERROR_STATUS : 0, stderr)
      assert.equal(/uninitialised/.test(stderr), isReported)
      assert.doesNotMatch(stderr, /unhandled/) // system calls that valgrind does not know
    })
  }

  it('bytes that are sent and nobody has written are reported if it is asked for', async t => {
    const daemon = await startDaemon(t)
    for (const [asked, expected] of [
      [{}, 0],
      [{ USERDMA_UNDEFINED: '1' }, ERROR_STATUS],
    ] as const) {
      const { stderr, status } = await run(t, 'valgrind', [`--error-exitcode=${ERROR_STATUS}`, program, 'sent'], {
        env: { ...daemon.env, ...asked },
      })
      assert.equal(status, expected, stderr)
      assert.equal(/Uninitialised byte/.test(stderr), expected !== 0, stderr)
    }
  })

  it('the library of --host tells of posts, too', async t => {
    const { env } = await startDaemon(t)
    const under = async (...options: readonly string[]): Promise<number> => {
      const args = ['run', ...options, '--', 'valgrind', '-q', join(repoRoot, 'build', 'findings', 'outside-objects')]
      const { stderr } = await run(t, userdma, args, { env })
      return stderr.match(/are not the program's/g)?.length ?? 0
    }
    // Here the machine's devices are those of a daemon, whose library tells at the post and at the completion.
    assert.deepEqual([await under('--socket', env.USERDMA_SOCKET ?? ''), await under('--host')], [2, 3])
  })

  it('bytes that arrived before the device was removed are initialised', async t => {
    const daemon = await startDaemon(t)
    const running = start(t, 'valgrind', [`--error-exitcode=${ERROR_STATUS}`, program, 'removed'], {
      env: daemon.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    await running.printed(/ready/)
    await removeDevice(t, daemon, 'rxe0')
    running.child.stdin?.end('\n')
    const { stdout, stderr, status } = await running.ended
    assert.equal(stdout, 'ready\narrived\n', stderr)
    assert.equal(status, 0, stderr)
  })
})
