/*
 * protoc, the compiler of protobuf, reads a trace for Perfetto: without a schema, and with perfetto.proto.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { createPerfetto } from '../../../src/cli/export/perfetto.ts'
import { repoRoot } from '../../paths.ts'
import { lacking } from '../../system/programs.ts'
import { sessionEvents } from './session.ts'

test('protoc decodes a trace, every byte of it', { skip: lacking('protoc') }, async () => {
  const parts: Uint8Array[] = []
  const perfetto = createPerfetto(bytes => parts.push(bytes.slice()))
  for (const event of await sessionEvents()) perfetto.add(event)
  const input = Buffer.concat(parts)
  const protoc = (...args: readonly string[]) => {
    const { status, stdout, stderr } = spawnSync('protoc', args, { input, encoding: 'utf8' })
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
    return stdout
  }
  const raw = protoc('--decode_raw')
  assert.equal(raw.match(/^1 \{$/gm)?.length, parts.length)
  const schema = [`-I${join(repoRoot, 'src/cli/export')}`, join(repoRoot, 'src/cli/export/perfetto.proto')]
  const text = protoc('--decode=userdma.perfetto.Trace', ...schema)
  assert.equal(text.match(/^packet \{$/gm)?.length, parts.length)
  // A field that the schema lacks has a number in place of its name.
  assert.doesNotMatch(text, /^\s*\d+(: | \{)/m)
  assert.match(text, /name: "rc_qp 0x12"/)
  assert.match(text, /terminating_flow_ids/)
})
