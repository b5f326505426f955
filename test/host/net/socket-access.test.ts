/*
 * Which users may connect to a socket, by the permissions of its file: tried by setpriv(1) as root.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { allowConnects } from '../../../src/host/net/socket-access.ts'
import { close, listen } from '../../../src/host/net/sockets.ts'
import { findTool } from '../../tools.ts'

/** Numbers of users and groups that are nobody's. */
const [USER, GROUP, OTHER] = [54_321, 54_322, 54_323]

/** Users: of their own, in group GROUP, with GROUP as supplementary group, and another. */
const clients = [
  ['user', USER, USER, undefined],
  ['member', OTHER, GROUP, undefined],
  ['supplementary', OTHER, OTHER, GROUP],
  ['other', OTHER, OTHER, undefined],
] as const

const canRun = process.geteuid?.() === 0 && findTool('setpriv') !== undefined

test('users and groups that are allowed may connect, and no others', {
  skip: !canRun && 'it needs root and setpriv',
}, t => {
  // In memory: a file system with access lists.
  const folder = mkdtempSync('/dev/shm/userdma-access-')
  t.after(() => rmSync(folder, { recursive: true }))
  chmodSync(folder, 0o755)
  const members = ['member', 'supplementary']
  for (const [users, groups, mayConnect] of [
    [[], [], []],
    [[USER], [], ['user']],
    [[], [GROUP], members],
    [[USER, 1, USER], [GROUP], ['user', ...members]],
    [[1], [2, GROUP, 1, GROUP], members],
  ] as const) {
    const path = join(folder, `${users}-${groups}`)
    const server = listen(path, {
      setAccess: file => assert.equal(allowConnects(file, { users, groups }), undefined),
    })
    const found = clients.filter(([, uid, gid, group]) => {
      const ids = [`--reuid=${uid}`, `--regid=${gid}`, group === undefined ? '--clear-groups' : `--groups=${group}`]
      // connect(2) needs to write.
      return spawnSync('setpriv', [...ids, 'test', '-w', path]).status === 0
    })
    assert.deepEqual(
      found.map(([name]) => name),
      mayConnect,
      path,
    )
    const isOneGroup = users.length === 0 && groups.length === 1
    assert.equal(statSync(path).mode & 0o777, users.length + groups.length === 0 ? 0o600 : 0o660)
    assert.equal(statSync(path).gid, isOneGroup ? GROUP : 0)
    close(server)
  }
})
