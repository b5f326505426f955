/*
 * Blocks of output files. The files that a command may write to: test/cli/output-file.test.ts.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { appendBlock } from '../../src/host/output-file.ts'
import { scratchFolder } from '../tools.ts'

const { O_RDWR, O_NONBLOCK } = constants

test('a block that a pipe does not take completely is refused with the error of the write', () => {
  const path = join(scratchFolder(), 'pipe')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, O_RDWR | O_NONBLOCK)
  assert.ok(fstatSync(fd).isFIFO())
  assert.throws(() => appendBlock(fd, new Uint8Array(1 << 20)), { code: 'EAGAIN' })
  closeSync(fd)
})
