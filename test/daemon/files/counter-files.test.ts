/*
 * Counter files. A refresh renews files that are older than `lifespan` milliseconds.
 */
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createCounterFiles } from '../../../src/daemon/files/counter-files.ts'
import { portCounterFiles } from '../../../src/spec/counters.ts'
import { scratchFolder } from '../../tools.ts'
import { daemonOf, dial } from '../client.ts'

const folder = scratchFolder()

const setUp = (name: string) => {
  const root = join(folder, name)
  mkdirSync(root)
  const engine = { sentPackets: 3 }
  const port = { sentBytes: 4000 }
  let time = 0
  let renewals = 0
  const counted = () => {
    renewals++
    return { engine, port }
  }
  const files = createCounterFiles(root, [{ name: 'rxe0', counted }], () => time)
  const path = (file: string): string => join(root, 'sys/devices/virtual/infiniband/rxe0/ports/1', file)
  return {
    files,
    engine,
    port,
    path,
    renewals: () => renewals,
    read: (file: string): string => readFileSync(path(file), 'utf8'),
    refreshAt: (milliseconds: number): void => {
      time = milliseconds
      files.refresh()
    },
  }
}

test('every counter has a read-only file with a value; the file lifespan is writable', () => {
  const setup = setUp('a')
  for (const part of ['hw_counters', 'counters'] as const) {
    const names = portCounterFiles.filter(file => file.folder === part).map(({ name }) => name)
    const extra = part === 'hw_counters' ? ['lifespan'] : []
    assert.deepEqual(readdirSync(setup.path(part)).sort(), [...names, ...extra].sort())
    for (const name of names) assert.equal(statSync(setup.path(`${part}/${name}`)).mode & 0o777, 0o444, name)
  }
  assert.equal(statSync(setup.path('hw_counters/lifespan')).mode & 0o777, 0o644)
  assert.equal(setup.read('hw_counters/sent_pkts'), '3\n')
  assert.equal(setup.read('counters/port_xmit_data'), '1000\n', '4000 bytes, in words of 4 bytes')
  assert.equal(setup.read('hw_counters/lifespan'), '10\n')
})

test('a refresh writes changed values only', () => {
  const setup = setUp('b')
  const inode = (file: string): number => statSync(setup.path(file)).ino
  const before = { bytes: inode('counters/port_xmit_data'), packets: inode('hw_counters/sent_pkts') }
  setup.engine.sentPackets = 12345678901
  assert.equal(setup.read('hw_counters/sent_pkts'), '3\n')
  setup.refreshAt(10)
  assert.equal(setup.read('hw_counters/sent_pkts'), '12345678901\n')
  assert.notEqual(inode('hw_counters/sent_pkts'), before.packets)
  assert.equal(inode('counters/port_xmit_data'), before.bytes)
})

test('a value younger than lifespan is not refreshed; programs may change lifespan', () => {
  const setup = setUp('c')
  setup.engine.sentPackets = 4
  setup.refreshAt(9)
  assert.equal(setup.read('hw_counters/sent_pkts'), '3\n')
  setup.refreshAt(10)
  assert.equal(setup.read('hw_counters/sent_pkts'), '4\n')
  assert.equal(setup.renewals(), 2)
  writeFileSync(setup.path('hw_counters/lifespan'), '0\n')
  setup.engine.sentPackets = 5
  setup.refreshAt(10)
  assert.equal(setup.read('hw_counters/sent_pkts'), '5\n')
  writeFileSync(setup.path('hw_counters/lifespan'), '10000')
  setup.engine.sentPackets = 6
  setup.refreshAt(10009)
  assert.equal(setup.read('hw_counters/sent_pkts'), '5\n')
  for (const nonsense of ['10001', '-1', 'x', '', '1e3']) {
    writeFileSync(setup.path('hw_counters/lifespan'), nonsense)
    setup.refreshAt(10009)
    assert.equal(setup.read('hw_counters/lifespan'), '10000\n', nonsense)
  }
  setup.refreshAt(10010)
  assert.equal(setup.read('hw_counters/sent_pkts'), '6\n')
})

test('the file of a value that cannot be written is removed until a refresh can write it', () => {
  const setup = setUp('d')
  // `replaceFile` (tree-files.ts) writes this file, then renames it.
  const blocked = join(folder, 'd', 'new')
  mkdirSync(blocked)
  setup.engine.sentPackets = 4
  assert.throws(() => setup.refreshAt(100), { code: 'EEXIST' })
  assert.ok(!existsSync(setup.path('hw_counters/sent_pkts')), 'an old value is not shown')
  assert.ok(existsSync(setup.path('hw_counters/rcvd_pkts')), 'the file of an unchanged value remains')
  assert.throws(() => setup.refreshAt(100), { code: 'EEXIST' })
  rmdirSync(blocked)
  setup.refreshAt(100)
  assert.equal(setup.read('hw_counters/sent_pkts'), '4\n')
})

test('the counters of a device are refreshed although the counters of another device fail', () => {
  const setup = setUp('e')
  const second = { engine: { sentPackets: 1 }, port: {} }
  setup.files.add({ name: 'rxe1', counted: () => second })
  rmSync(setup.path('hw_counters/lifespan'))
  second.engine.sentPackets = 2
  assert.throws(() => setup.refreshAt(100), { code: 'ENOENT' })
  const other = setup.path('hw_counters/sent_pkts').replace('rxe0', 'rxe1')
  assert.equal(readFileSync(other, 'utf8'), '2\n')
})

test('a daemon has counter files, and refreshes them at REFRESH', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  const { root } = await client.hello()
  const counters = join(root, 'sys/devices/virtual/infiniband/rxe0/ports/1/hw_counters')
  assert.equal(readFileSync(join(counters, 'rcvd_pkts'), 'utf8'), '0\n')
  // A refresh replaces an invalid lifespan.
  writeFileSync(join(counters, 'lifespan'), 'x')
  assert.equal((await client.refresh()).ret, 0n)
  assert.equal(readFileSync(join(counters, 'lifespan'), 'utf8'), '10\n')
})

test('a renamed device keeps its lifespan', () => {
  const { files, path, engine, port } = setUp('renamed')
  writeFileSync(path('hw_counters/lifespan'), '500\n')
  files.remove('rxe0')
  const infiniband = join(folder, 'renamed', 'sys/devices/virtual/infiniband')
  renameSync(join(infiniband, 'rxe0'), join(infiniband, 'rxe1'))
  files.add({ name: 'rxe1', counted: () => ({ engine, port }) })
  assert.equal(readFileSync(join(infiniband, 'rxe1/ports/1/hw_counters/lifespan'), 'utf8'), '500\n')
})
