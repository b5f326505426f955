/*
 * Users with ranges of subordinate uids on a shared daemon (docs/decisions/shares.md). Shares of each limit are in
 * test/daemon/accounts.test.ts.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { Limits } from '../../../src/drivers/soft/attributes.ts'
import { skipTest } from '../../tools.ts'
import { lacking, NOBODY, noGuests, ownProgram, start, startDaemon, temporaryFolder } from '../programs.ts'

const program = ownProgram('many_objects')
/** A GID and UIDs that the system does not have. */
const GROUP = 54321
const FIRST = 3_000_000
const COUNT = 100
const FIRST_OF_ROOT = FIRST + COUNT

it('a user and the subordinate uids have one share', { skip: noGuests() || lacking(program, 'setpriv') }, async t => {
  const ranges = join(temporaryFolder(t), 'subuid')
  writeFileSync(ranges, `nobody:${FIRST}:${COUNT}\n0:${FIRST_OF_ROOT}:${COUNT}\n`)
  // The daemon's mount namespace has this file as /etc/subuid.
  const mount = ['unshare', '--mount', 'sh', '-c', `mount --bind ${ranges} /etc/subuid && exec "$0" "$@"`]
  if (spawnSync(mount[0], [...mount.slice(1), 'true']).status !== 0)
    return void skipTest(t, 'needs unshare, the right to mount, and a file /etc/subuid')
  const daemon = await startDaemon(t, { options: ['--allow-group', `${GROUP}`], wrapper: mount })
  const { members } = Limits.multicast
  /** Attaches as many queue pairs as possible to a multicast group, and keeps them; returns their number. */
  const attachAll = async (uid: number): Promise<number> => {
    const identity = [`--reuid=${uid}`, `--regid=${uid}`, `--groups=${GROUP}`]
    const guest = start(t, 'setpriv', [...identity, program, 'member', `${members}`], {
      env: daemon.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const [, count] = await guest.printed(new RegExp(`(?:(\\d+) of ${members}: Cannot allocate memory\n){3}`))
    return Number(count)
  }
  const forGuests = (members * 7) / 8
  const first = await attachAll(FIRST + COUNT - 1)
  assert.equal(first, Math.floor(forGuests / 2))
  assert.equal(await attachAll(NOBODY), 0)
  // A range of the daemon's own user is a guest's.
  const second = await attachAll(FIRST_OF_ROOT)
  assert.equal(second, Math.floor((forGuests - first) / 2))
  assert.equal(await attachAll(FIRST_OF_ROOT + 1), 0)
  // No range has this uid.
  assert.equal(await attachAll(FIRST_OF_ROOT + COUNT), Math.floor((forGuests - first - second) / 2))
})
