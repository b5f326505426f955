/*
 * Output files of commands: those written in place, results, requireDifferentFiles, writeAll.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs, {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  linkSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { UsageError } from '../../src/cli/fail.ts'
import {
  createResult,
  openInPlace,
  openOutput,
  openReport,
  requireDifferentFiles,
  writeAll,
} from '../../src/cli/output-file.ts'
import { hasNative } from '../../src/host/native.ts'
import { emptyOutputFile } from '../../src/host/output-file.ts'
import { scratchFolder } from '../tools.ts'

const folder = scratchFolder()
const isRoot = process.geteuid?.() === 0

/** Both kinds of files with a text. */
const kinds: Readonly<Record<string, (path: string, text: string) => void>> = {
  'in place': (path, text) => {
    const output = openOutput(path)
    output.write(text)
    output.close()
  },
  'a result': (path, text) => openReport(path).write(text),
}

for (const [kind, write] of Object.entries(kinds)) {
  test(`${kind}: a file is created, or replaced, with mode 0600`, () => {
    const path = join(folder, 'calls')
    for (const umask of [0, 0o777]) {
      const previous = process.umask(umask)
      write(path, 'text')
      process.umask(previous)
      assert.equal(readFileSync(path, 'utf8'), 'text')
      assert.equal(statSync(path).mode & 0o777, 0o600)
      writeFileSync(path, 'a longer text written before', { mode: 0o644 })
    }
    rmSync(path)
  })

  test(`${kind}: links are refused, and their targets are unchanged`, () => {
    const inner = scratchFolder()
    const precious = join(inner, 'precious')
    writeFileSync(precious, 'text')
    symlinkSync(precious, join(inner, 'symbolic'))
    symlinkSync(join(inner, 'nothing'), join(inner, 'dangling'))
    linkSync(precious, join(inner, 'hard'))
    assert.throws(() => write(join(inner, 'symbolic'), ''), /: it is a symbolic link; name the file itself$/)
    assert.throws(() => write(join(inner, 'dangling'), ''), /: it is a symbolic link; name the file itself$/)
    assert.throws(() => write(join(inner, 'hard'), ''), /: the file has 2 names; remove it, or name another$/)
    assert.throws(() => write(join(inner, 'none', 'x'), ''), UsageError)
    assert.equal(readFileSync(precious, 'utf8'), 'text')
    assert.deepEqual(readdirSync(inner).sort(), ['dangling', 'hard', 'precious', 'symbolic'])
  })

  test(`${kind}: devices and the program’s own descriptors may be written to`, () => {
    const path = join(folder, 'own')
    const fd = openSync(path, 'w+')
    for (const name of ['/dev/null', `/dev/fd/${fd}`, `/proc/self/fd/${fd}`]) write(name, 'text')
    closeSync(fd)
    assert.equal(readFileSync(path, 'utf8'), 'text')
  })
}

test('an older file stays as it is until the first write, and a result until it is complete', () => {
  const path = join(scratchFolder(), 'old')
  writeFileSync(path, 'old')
  closeSync(openInPlace(path))
  openOutput(path)
  const result = createResult(path)
  writeSync(result.open(), 'half')
  assert.equal(readFileSync(path, 'utf8'), 'old')
  result.discard()
  assert.deepEqual([readFileSync(path, 'utf8'), readdirSync(dirname(path))], ['old', ['old']])
})

test('a result in a folder without the right to create files is written in place', {
  skip: isRoot && 'root may',
}, () => {
  const inner = scratchFolder()
  const path = join(inner, 'report')
  writeFileSync(path, 'old')
  chmodSync(inner, 0o500)
  openReport(path).write('new')
  chmodSync(inner, 0o700)
  assert.equal(readFileSync(path, 'utf8'), 'new')
})

test('two outputs, or an output and an input, may not be one file, by whatever names', () => {
  const path = join(folder, 'one')
  const refuse = (name: string, other: string): void => {
    const first = ['--output', name] as const
    const second = ['--pcap', other] as const
    const message = `--output and --pcap are the same file ${name}`
    assert.throws(() => requireDifferentFiles([first, second]), { name: 'UsageError', message })
    assert.throws(() => requireDifferentFiles([first], [second]), { name: 'UsageError', message })
  }
  refuse(path, join(folder, '.', 'one'))
  const fd = openInPlace(path)
  for (const name of [`/dev/fd/${fd}`, `/proc/self/fd/${fd}`]) refuse(path, name)
  closeSync(fd)
  requireDifferentFiles([['--output', path]], [['--pcap', join(folder, 'other')]])
  requireDifferentFiles([
    ['--output', '/dev/null'],
    ['--pcap', '/dev/null'],
  ])
})

test("another user's file is refused", { skip: !isRoot && 'only root can make such a file' }, () => {
  const path = join(folder, 'foreign')
  writeFileSync(path, 'text')
  chownSync(path, 65534, 65534)
  for (const open of [openInPlace, createResult])
    assert.throws(() => open(path), /: it belongs to user 65534; remove it, or name another file$/)
  assert.equal(readFileSync(path, 'utf8'), 'text')
})

const title = 'a file of another user may be written to through a descriptor of the program'
test(title, { skip: !isRoot && 'only root can make such a file' }, t => {
  const path = join(folder, 'passed')
  writeFileSync(path, 'text')
  execFileSync('mkfifo', [`${path}-fifo`])
  for (const name of [path, `${path}-fifo`]) {
    chmodSync(name, 0o640)
    chownSync(name, 65534, 65534)
    const fd = openSync(name, 'r+')
    t.after(() => closeSync(fd))
    const output = openInPlace(`/dev/fd/${fd}`)
    emptyOutputFile(output)
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
