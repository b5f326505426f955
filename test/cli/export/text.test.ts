/*
 * Sessions as text, JSON and pcapng, and without what is private. UPDATE_GOLDEN=1 rewrites the golden file.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createCapture } from '../../../src/cli/export/packets.ts'
import { eventJson, eventLine } from '../../../src/cli/export/text.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { createRedactor } from '../../../src/tools/record/redact.ts'
import { SessionSymbols } from '../../../src/tools/record/symbols.ts'
import { readCapture } from '../../captures.ts'
import { repoRoot } from '../../paths.ts'
import { ADDRESS, sessionEvents } from './session.ts'

const golden = join(repoRoot, 'test/cli/export/session.golden')

describe('a session', async () => {
  const events = await sessionEvents()

  it('is a line of text for each event', () => {
    const lines = `${events.map(event => eventLine(event, new SessionSymbols())).join('\n')}\n`
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, lines)
    assert.equal(lines, readFileSync(golden, 'utf8'))
  })

  it('is JSON with bytes and 64-bit numbers as text', () => {
    const post = events.find(event => event.kind === 'posted')
    assert.ok(post)
    assert.equal((eventJson(post).request as { wrId: string }).wrId, '101')
    const packets = events.find(event => event.kind === 'packets')
    assert.ok(packets)
    assert.match(String(eventJson(packets).bytes), /^04[0-9a-f]{22}$/)
  })

  it('is a capture with its whole packets, and the outcome as a comment', () => {
    const parts: Uint8Array[] = []
    const capture = createCapture(bytes => parts.push(bytes.slice()), { origin: 0 } as never, new Map([[0, 'rxe0']]))
    for (const event of events) if (event.kind === 'packets') capture.add(event.time, event)
    capture.end()
    const packets = readCapture(Buffer.concat(parts))
    // A packet that is lost on arrival is one frame.
    assert.equal(packets.length, 5)
    const [first] = packets
    assert.equal(first.length, first.bytes.length)
    // Behind Ethernet's 14 bytes and IPv4's 20, and the source port.
    assert.equal((first.bytes[36] << 8) | first.bytes[37], ROCE_UDP_PORT)
    assert.ok(Buffer.concat(parts).includes('dropped'))
  })

  it('tells nothing private after redaction, with the same pseudonym for the same address', () => {
    const redact = createRedactor()
    const redacted = events.map(redact)
    const text = JSON.stringify(redacted.map(eventJson))
    for (const secret of ['someone', '192.168', '7f1234567', '7f12345', String(ADDRESS), String(ADDRESS + 8)])
      assert.ok(!text.includes(secret), secret)
    const [post] = redacted.flatMap(event => (event.kind === 'posted' ? [event.request] : []))
    const write = redacted.flatMap(event => (event.kind === 'posted' && event.request.remote ? [event.request] : []))[0]
    assert.equal(post.elements[0].address, (write.remote?.address ?? 0) + 8)
    // What belongs together still does, and what happened is still there.
    assert.equal(new Set(text.match(/\/file\d+/g)).size, 2)
    assert.match(text, /unknown-rkey/)
    const sources = redacted.flatMap(event => (event.kind === 'packets' ? [String(event.flow.source)] : []))
    assert.equal(new Set(sources).size, 1)
  })
})
