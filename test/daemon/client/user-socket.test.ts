/*
 * The path of the socket of the user's daemon. Folders that are not private to the user are refused.
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { privateFolder, removeFolder } from '../../../src/cli/paths.ts'
import { daemonCommand, makeSocketFolder, namedSocket, userSocket } from '../../../src/daemon/client/user-socket.ts'

const uid = process.getuid?.() ?? 0
const NOBODY = 65534
const { TMPDIR, XDG_RUNTIME_DIR, USERDMA_SOCKET } = process.env
const before = { TMPDIR, XDG_RUNTIME_DIR, USERDMA_SOCKET }

describe("the user's own socket", () => {
  let folder: string
  beforeEach(() => {
    folder = privateFolder()
    process.env.TMPDIR = folder
    delete process.env.XDG_RUNTIME_DIR
    delete process.env.USERDMA_SOCKET
  })
  afterEach(() => {
    removeFolder(folder)
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  })

  /** The folder of the socket without a runtime folder. */
  const userFolder = (): string => join(folder, `userdma-${uid}`)

  it('is in the runtime folder of this user', () => {
    process.env.XDG_RUNTIME_DIR = join(folder, 'run')
    mkdirSync(process.env.XDG_RUNTIME_DIR)
    assert.equal(userSocket(), join(folder, 'run', 'userdma', 'sock'))
  })

  it('is in the temporary folder without a runtime folder', () => {
    const expected = join(userFolder(), 'sock')
    assert.equal(userSocket(), expected)
    process.env.XDG_RUNTIME_DIR = join(folder, 'missing')
    assert.equal(userSocket(), expected)
    process.env.XDG_RUNTIME_DIR = '.'
    assert.equal(userSocket(), expected)
  })

  it("is not in another user's runtime folder", { skip: uid !== 0 && 'only root can give files away' }, () => {
    process.env.XDG_RUNTIME_DIR = join(folder, 'run')
    mkdirSync(process.env.XDG_RUNTIME_DIR)
    chownSync(process.env.XDG_RUNTIME_DIR, NOBODY, NOBODY)
    assert.equal(userSocket(), join(userFolder(), 'sock'))
  })

  it('is in a folder that other users may not enter', () => {
    assert.ok(!existsSync(userFolder()))
    const socket = makeSocketFolder()
    assert.equal(makeSocketFolder(), socket)
    assert.equal(statSync(join(socket, '..')).mode & 0o7777, 0o700)
  })

  const unsafe: readonly (readonly [name: string, create: () => void, message: RegExp, needsRoot?: boolean])[] = [
    [
      'others may enter its folder',
      () => mkdirSync(userFolder(), { mode: 0o755 }),
      /has mode 0755, so that others may use it; run `chmod 700 /,
    ],
    ['its folder is a file', () => writeFileSync(userFolder(), ''), /is not a folder/],
    ['its folder is a link', () => symlinkSync(folder, userFolder()), /is not a folder/],
    [
      'its folder belongs to another user',
      () => {
        mkdirSync(userFolder(), { mode: 0o700 })
        chownSync(userFolder(), NOBODY, NOBODY)
      },
      /belongs to user 65534, not to you \(0\); make a folder/,
      true,
    ],
  ]
  for (const [name, create, message, needsRoot] of unsafe)
    it(`is refused if ${name}`, { skip: needsRoot && uid !== 0 && 'only root can give files away' }, () => {
      create()
      assert.throws(() => userSocket(), message)
      assert.throws(() => makeSocketFolder(), message)
    })

  it('is refused if its folder cannot be created', { skip: uid === 0 && 'root can write everywhere' }, () => {
    chmodSync(folder, 0o500)
    assert.throws(() => makeSocketFolder(), /cannot make .*EACCES.*--socket PATH/)
    chmodSync(folder, 0o700)
  })

  it('is the default of a daemon; `daemonCommand` names any other path', () => {
    assert.equal(daemonCommand(userSocket()), 'userdma daemon')
    assert.equal(daemonCommand('/x/y'), 'userdma daemon --socket /x/y')
    assert.equal(daemonCommand("/it's here"), "userdma daemon --socket '/it'\\''s here'")
  })

  it('is not used if an option or the environment has another path', () => {
    assert.equal(namedSocket(undefined), undefined)
    assert.equal(namedSocket('/a/b'), '/a/b')
    assert.equal(namedSocket('b'), join(process.cwd(), 'b'))
    process.env.USERDMA_SOCKET = '/c'
    assert.equal(namedSocket(undefined), '/c')
    assert.equal(namedSocket('/a/b'), '/a/b')
  })
})
