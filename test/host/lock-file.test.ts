/*
 * The lock of a daemon's start.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chownSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { nextTurn } from '../../src/host/event-loop/next-turn.ts'
import { takeLock } from '../../src/host/lock-file.ts'
import { scratchFolder } from '../tools.ts'

const folder = scratchFolder()
const isRoot = process.geteuid?.() === 0

/** The files in `folder` that this process has open. */
const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(folder) ? [path] : []
    } catch {
      return [] // the descriptor of the listing itself
    }
  })

afterEach(() => assert.deepEqual(openFiles(), [], 'every descriptor is closed'))

test('a lock has one owner at a time, and its file is removed with it', async () => {
  const path = join(folder, 'plain')
  const before = process.umask(0o777)
  const first = await takeLock(path).finally(() => process.umask(before))
  assert.equal(statSync(path).mode & 0o777, 0o600, 'with any umask')
  await assert.rejects(takeLock(path, 0), {
    message: `${path} is locked by process ${process.pid}, which starts a daemon at the same path; end it and try again`,
  })
  const second = takeLock(path)
  first.release()
  ;(await second).release()
  assert.equal(existsSync(path), false)
})

test('a waiter does not get the lock of a removed file while another owner has the lock of the new file', async () => {
  const path = join(folder, 'contended')
  const first = await takeLock(path)
  let isTaken = false
  const waiting = takeLock(path).then(lock => {
    isTaken = true
    return lock
  })
  // as if an earlier owner had removed the file, and another process had created a new file
  unlinkSync(path)
  const second = await takeLock(path)
  first.release()
  assert.ok(existsSync(path), 'the first owner does not remove the file of the second owner')
  // until the waiter has locked and closed the removed file
  while (!isTaken && openFiles().includes(`${path} (deleted)`)) await nextTurn()
  assert.equal(isTaken, false)
  second.release()
  ;(await waiting).release()
  assert.equal(existsSync(path), false)
})

test('a symbolic link is not followed, and its target is not changed', async () => {
  const target = join(folder, 'precious')
  writeFileSync(target, 'text')
  const path = join(folder, 'link')
  symlinkSync(target, path)
  await assert.rejects(takeLock(path), { message: `${path} is a symbolic link, which cannot be a lock; remove it` })
  assert.equal(readFileSync(target, 'utf8'), 'text')
})

test('a FIFO is refused, without waiting for its other end', async t => {
  const path = join(folder, 'fifo')
  if (spawnSync('mkfifo', [path]).status !== 0) return t.skip('mkfifo is missing')
  await assert.rejects(takeLock(path), /is not a file of user \d+, which a lock must be; remove it$/)
})

test("another user's file is refused", { skip: !isRoot && 'only root can make one' }, async () => {
  const path = join(folder, 'foreign')
  writeFileSync(path, 'text')
  chownSync(path, 65534, 65534)
  await assert.rejects(takeLock(path), /is not a file of user 0/)
  assert.equal(readFileSync(path, 'utf8'), 'text')
})

test('a lock is reported without its holder if /proc has only processes', {
  skip: !isRoot && 'only root can mount /proc',
}, t => {
  const script = `
    import { takeLock } from ${JSON.stringify(new URL('../../src/host/lock-file.js', import.meta.url).href)}
    await takeLock('lock')
    await takeLock('lock', 0).catch(error => process.stdout.write(error.message))`
  const command = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
  const node = [process.execPath, '--input-type=module', '-e', script]
  const args = ['-m', 'sh', '-c', command, 'sh', ...node]
  const { status, stdout } = spawnSync('unshare', args, { cwd: folder, encoding: 'utf8' })
  if (status !== 0) return t.skip('this system allows no mount of /proc with subset=pid')
  assert.match(stdout, /^lock is locked by another process, /)
})
