/*
 * The program's name in the trace record of a call.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { hasNative } from '../../../src/host/native.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'
import { daemonOf } from '../client.ts'

const folder = scratchFolder()

/** A program that prints its pid, waits for the file `startFile`, and exits after a call without reading the answer. */
const CALLER = `
import { existsSync } from 'node:fs'
const [clients, codec, socket, startFile] = process.argv.slice(1)
const { dial } = await import(clients)
const { messageBuffer, writeRequest } = await import(codec)
process.title = 'caller'
const client = dial({ after() {} }, { socket })
await client.hello()
const context = await client.context()
const buffer = messageBuffer()
const address = BigInt(client.memory.address)
const length = writeRequest(buffer, 'WRITE', { context, pid: process.pid }, { buffer: address, length: 16n })
console.log(process.pid)
while (!existsSync(startFile));
client.send(buffer.bytes.subarray(0, length))
process.exit()
`

test('a call of a program that has ended is traced with the name of the program', { skip: !hasNative() }, async t => {
  const daemon = await daemonOf(t, folder)
  const records: TraceRecord[] = []
  const tool = await openToolSession(daemon.socket, {
    onTrace: event => {
      if (!('failure' in event)) records.push(event)
    },
  })
  t.after(() => tool.close())
  await tool.trace('')
  const module = (path: string): string => pathToFileURL(join(repoRoot, 'dist', path)).href
  const startFile = join(folder, 'go')
  const args = [module('test/daemon/client.js'), module('src/uapi/session-codec.js'), daemon.socket, startFile]
  // This process blocks its event loop until the program has ended, so a shell must reap the program.
  const shell = spawn('sh', ['-c', '"$0" --input-type=module -e "$@"; true', process.execPath, CALLER, ...args])
  const ended = once(shell, 'close')
  const [pid] = (await once(shell.stdout.setEncoding('utf8'), 'data')) as [string]
  writeFileSync(startFile, '')
  while (existsSync(`/proc/${pid.trim()}/comm`));
  await ended
  await tool.stat()
  const last = records.at(-1)
  assert.deepEqual([last?.pid, last?.command], [Number(pid), 'caller'])
  assert.ok((last?.ret ?? 0) < 0, 'its memory is gone')
})
