/*
 * A driver that shares pages of the program's own memory (docs/decisions/adopted-pages.md).
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { inLongRun } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import {
  assertGood,
  lacking,
  NOBODY,
  noGuests,
  noOtherUser,
  ownProgram,
  run,
  runUserdma,
  startDaemon,
  suiteScope,
  type TestDaemon,
} from '../programs.ts'

const program = ownProgram('adopted')
const frozen = ownProgram('frozen')
const DRIVER = 'test/system/devices/adopted.mjs'

const IN_NAMESPACE = ', in a user namespace'

/** Commands that run a program of root as another user's, and as in a container: a guest of the daemon. */
const AS_GUEST = {
  '': [],
  ', of a guest': ['setpriv', `--reuid=${NOBODY}`, '--clear-groups'],
  [IN_NAMESPACE]: ['unshare', '--user', '--map-root-user'],
} as const

for (const [whose, prefix] of Object.entries(AS_GUEST))
  describe(`pages of a program that a device shares${whose}`, {
    skip: lacking(program, ...prefix.slice(0, 1)) || (whose !== '' && noGuests()),
  }, () => {
    const scope = suiteScope()
    let daemon: TestDaemon
    before(async () => {
      const guest = whose === '' ? {} : { guest: NOBODY }
      daemon = await startDaemon(scope, {
        devices: [],
        options: ['--driver', DRIVER, '--device', 'adopted0'],
        ...guest,
      })
    })

    for (const [name, what] of [
      ['share', 'have their content, carry stores without a call, and are ordinary memory after the destroy'],
      ['fork', 'are not shared with the child of a fork'],
      ['close', 'are ordinary memory when the context is closed'],
      ['threads', 'serve several threads that create and destroy at the same time'],
      ['race', 'lose no store of another thread while they are replaced'],
      ['hostile', 'are private memory of the program, and bounded'],
      ['fails', 'stay as they are if the call fails'],
      ['full', 'stay as they are if they cannot be mapped, and the call is undone'],
      ['many', 'may be many'],
      ['stack', 'may be those of the stack that the call uses'],
      ['unmapped', 'may be unmapped by the program before the destroy'],
    ] as const) {
      // These take long, and their calls are those of another user's program.
      if (whose === IN_NAMESPACE && ['threads', 'race', 'many'].includes(name) && !inLongRun(true, false)) continue
      it(`${what} (${name})`, async t => {
        const [command, ...args] = [...prefix, program, name]
        const { stdout, stderr, status } = await run(t, command!, args, { env: daemon.env })
        assert.equal(stdout, 'good\n')
        assert.equal(stderr, '')
        assert.equal(status, 0)
        assert.doesNotMatch(daemon.running.output(), /error|exception/i)
      })
    }
  })

describe('data beside a queue that comes and goes: a peer writes it, and threads store and read(2) there', {
  skip: lacking(frozen, '/etc/libibverbs.d/mlx5.driver'),
}, () => {
  const device = `mlx5_0@${loopbackText(61)},driver=mlx5`
  const args = ['mlx5_0', `${inLongRun(1000, 50)}`]
  const user = { uid: NOBODY, gid: NOBODY }
  // stores by the kernel wait for frozen pages if the user has the capability for that, otherwise they fail for a
  // moment
  for (const [whose, skip, options] of [
    ["of the tests' user", false, {}],
    ['of an ordinary user', noOtherUser(), user],
  ] as const)
    it(`nothing fails or is lost, ${whose}`, { skip }, async t => {
      const finished = await runUserdma(t, ['run', '--private', '--device', device, '--', frozen, ...args], options)
      assertGood(finished)
      assert.equal(finished.stdout, 'good\n')
    })

  it('nothing fails or is lost, of a guest', { skip: noGuests() }, async t => {
    const daemon = await startDaemon(t, { devices: [device], guest: NOBODY })
    const { stdout, stderr, status } = await run(t, frozen, args, { ...user, env: daemon.env })
    assert.deepEqual([stdout, stderr, status], ['good\n', '', 0])
  })
})
