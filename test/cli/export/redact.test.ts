/*
 * `userdma export --redact` in every format, of a file whose first events were overwritten: devices and objects come
 * from a checkpoint. And a file of another version.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { exportFormats } from '../../../src/cli/command-line/options.ts'
import { exportSession } from '../../../src/cli/commands/export.ts'
import { copyEvent } from '../../../src/tools/record/copy.ts'
import { SessionWriter } from '../../../src/tools/record/writer.ts'
import { temporaryFolder } from '../../system/programs.ts'
import { createMemorySink } from '../../tools/record/memory-sink.ts'
import { sessionEvents } from './session.ts'

const formats = Object.keys(exportFormats) as (keyof typeof exportFormats)[]

const SECRETS = ['someone', '192.168.3.', '7f12345', '\xc0\xa8\x03\x04', '\x7f\x12\x34\x56']
const found = (bytes: Uint8Array): string[] => {
  const text = Buffer.from(bytes).toString('latin1')
  return SECRETS.filter(secret => text.includes(secret))
}

const overwrittenFile = async (): Promise<Uint8Array> => {
  const sink = createMemorySink()
  const about = { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 }
  const writer = new SessionWriter(sink, { ...about, limit: 2 ** 20 })
  const events = (await sessionEvents()).filter(({ kind }) => kind !== 'end')
  const start = events[0].time
  for (const event of events) copyEvent(writer, start, event)
  for (let i = 0; i < 60_000; i++) writer.polled(start + i, 4, i)
  for (const event of events)
    if (event.kind !== 'object' && event.kind !== 'device') copyEvent(writer, start + 60_000, event)
  await writer.end(start + 60_000, '')
  return sink.bytes
}

describe('userdma export', () => {
  const overwritten = overwrittenFile()
  for (const to of formats)
    it(`--redact leaves nothing private in ${to}, also of what existed before the file's first event`, async t => {
      const folder = temporaryFolder(t)
      const file = join(folder, 'session.udr')
      const bytes = await overwritten
      assert.deepEqual(found(bytes), SECRETS)
      writeFileSync(file, bytes)
      const output = join(folder, 'output')
      await exportSession(file, { to, output, redact: true })
      const exported = readFileSync(output)
      assert.ok(exported.length > 500)
      assert.deepEqual(found(exported), [])
      if (to !== 'html') return
      const parts = [...exported.toString('latin1').matchAll(/vnd\.userdma\.session"[^>]*>([^<]*)</g)]
      const shown = Buffer.concat(parts.map(([, part]) => gunzipSync(Buffer.from(part, 'base64'))))
      assert.ok(shown.includes('rc_qp'))
      assert.deepEqual(found(shown), [])
    })

  it('says which version a file has that it cannot read', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    writeFileSync(file, 'userdma session 2: of tomorrow\n{}\n')
    await assert.rejects(
      exportSession(file, { to: 'text' }),
      /session\.udr: .* version 2; this userdma reads version 1/,
    )
  })
})
