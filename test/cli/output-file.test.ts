/*
 * Output files of traces and captures: createOutput, requireDifferentFiles, writeAll.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs, {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  linkSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { UsageError } from '../../src/cli/fail.ts'
import { createOutput, keepOutput, requireDifferentFiles, writeAll } from '../../src/cli/output-file.ts'
import { hasNative } from '../../src/host/native.ts'
import { scratchFolder } from '../tools.ts'

const folder = scratchFolder()

const created = (path: string): number => {
  const fd = createOutput(path)
  keepOutput(fd)
  return fd
}

test('a file is created, or truncated, with mode 0600', () => {
  const path = join(folder, 'calls')
  for (const umask of [0, 0o777]) {
    const previous = process.umask(umask)
    const fd = created(path)
    process.umask(previous)
    assert.equal(fstatSync(fd).size, 0)
    writeSync(fd, 'text')
    closeSync(fd)
    assert.equal(statSync(path).mode & 0o777, 0o600)
    writeFileSync(path, 'a longer text written before')
  }
})

test('links are refused, and their targets are unchanged', () => {
  const precious = join(folder, 'precious')
  writeFileSync(precious, 'text')
  symlinkSync(precious, join(folder, 'symbolic'))
  linkSync(precious, join(folder, 'hard'))
  assert.throws(() => createOutput(join(folder, 'symbolic')), /: it is a symbolic link; name the file itself$/)
  assert.throws(() => createOutput(join(folder, 'hard')), /: the file has 2 names; remove it, or name another$/)
  assert.throws(() => createOutput(join(folder, 'none', 'x')), UsageError)
  assert.equal(readFileSync(precious, 'utf8'), 'text')
})

test('two options may not name one file, by whatever names', () => {
  const path = join(folder, 'one')
  const refuse = (name: string, other: string): void =>
    assert.throws(() => requireDifferentFiles(['--output', name], ['--pcap', other]), {
      name: 'UsageError',
      message: `--output and --pcap name the same file ${name}`,
    })
  refuse(path, join(folder, '.', 'one'))
  const fd = created(path)
  for (const name of [`/dev/fd/${fd}`, `/proc/self/fd/${fd}`]) refuse(path, name)
  closeSync(fd)
  requireDifferentFiles(['--output', path], ['--pcap', join(folder, 'other')])
  requireDifferentFiles(['--output', '/dev/null'], ['--pcap', '/dev/null'])
})

test("another user's file is refused", { skip: process.geteuid?.() !== 0 && 'only root can make such a file' }, () => {
  const path = join(folder, 'foreign')
  writeFileSync(path, 'text')
  chownSync(path, 65534, 65534)
  assert.throws(() => createOutput(path), /: it belongs to user 65534; remove it, or name another file$/)
  assert.equal(readFileSync(path, 'utf8'), 'text')
})

test('devices and the program’s own descriptors may be written to', () => {
  const fd = created(join(folder, 'own'))
  for (const path of ['/dev/null', `/dev/fd/${fd}`, `/proc/self/fd/${fd}`]) closeSync(created(path))
  closeSync(fd)
})

const title = 'a file of another user may be written to through a descriptor of the program'
test(title, { skip: process.geteuid?.() !== 0 && 'only root can make such a file' }, t => {
  const path = join(folder, 'passed')
  writeFileSync(path, 'text')
  execFileSync('mkfifo', [`${path}-fifo`])
  for (const name of [path, `${path}-fifo`]) {
    chmodSync(name, 0o640)
    chownSync(name, 65534, 65534)
    const fd = openSync(name, 'r+')
    t.after(() => closeSync(fd))
    const output = created(`/dev/fd/${fd}`)
    writeSync(output, 'ok')
    closeSync(output)
    const read = Buffer.alloc(8)
    assert.equal(read.toString('utf8', 0, readSync(fd, read)), 'ok')
    assert.equal(statSync(name).mode & 0o777, 0o640)
  }
})

test('a writer waits for the reader of a full pipe', { skip: !hasNative() }, async t => {
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  // O_RDWR opens a FIFO without a reader.
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  t.after(() => closeSync(fd))
  const write = t.mock.method(fs, 'writeSync')
  syncBuiltinESMExports()
  t.after(() => {
    write.mock.restore()
    syncBuiltinESMExports()
  })
  const size = 300_000
  // The start of Node takes long enough for many writes.
  const reader = spawn('sh', ['-c', `'${process.execPath}' -e 0; head -c ${size} ${path} >/dev/null`], {
    stdio: 'ignore',
  })
  writeAll(fd, 'x'.repeat(size))
  const failures = write.mock.calls.filter(({ error }) => error !== undefined).length
  assert.ok(failures > 0, 'the FIFO was never full')
  // The FIFO is writable again when the reader has emptied a page: at most one failure per page.
  assert.ok(failures <= size / 4096, `${failures} writes failed`)
  await once(reader, 'exit')
})
