/*
 * Recordings that older builds have made: `userdma check` finds in them what it found when they were made
 * (test/fixtures/record).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { brotliDecompressSync } from 'node:zlib'
import type { Finding } from '../../../../src/spec/check/finding.ts'
import { Checker } from '../../../../src/tools/check/checker.ts'
import { ofToday } from '../../../../src/tools/record/program/old-events.ts'
import { SessionReplay } from '../../../../src/tools/record/program/replay.ts'
import { bytesSource, openSession } from '../../../../src/tools/record/reader.ts'
import { repoRoot } from '../../../paths.ts'

const folder = join(repoRoot, 'test/fixtures/record')

/** A line for each occurrence of what a finding says, with the innermost frame of each stack. */
const lineOf = ({ severity, id, program, text, details, moments, advice, objects }: Finding): string =>
  JSON.stringify([
    severity,
    id,
    program?.command,
    text,
    details,
    moments.map(({ action, time, stack }) => [action, time, stack[0] ?? '']),
    advice,
    objects.map(({ name }) => name),
  ])

/** What is found in the recording `name`, with the number of occurrences at the end. */
const readingOf = async (name: string): Promise<string> => {
  const session = await openSession(bytesSource(brotliDecompressSync(readFileSync(join(folder, name)))))
  const found: string[] = []
  let checker: Checker | undefined
  const replay = new SessionReplay(session.header, probes => {
    checker = new Checker(finding => found.push(lineOf(finding)), { isClosed: true, ...probes })
    return checker
  })
  for await (const event of session.eventsIn()) replay.take(event)
  replay.finish()
  checker?.settle()
  assert.equal(replay.damaged, 0)
  return `${found.map((line, i) => `${line} ×${checker?.counts[i]}`).join('\n')}\n`
}

it('the kinds of the message MISUSE of protocol 5 are found', async () => {
  assert.equal(await readingOf('misuse.udr.br'), readFileSync(join(folder, 'misuse.txt'), 'utf8'))
})

it('what the messages of protocol 6 told is found', async () => {
  assert.equal(await readingOf('preload.udr.br'), readFileSync(join(folder, 'preload.txt'), 'utf8'))
})

it('a wait whose text names a block of the device is told with the wr_id', () => {
  const at = { device: 'mlx5_0', deviceNumber: 0, context: 1, program: { pid: 10620, command: 'endless-rnr' } }
  const request = { queue: 1, number: 0x83b58b, wrId: 0n }
  const text = (name: string): string => `QP 0x83b58b: SEND ${name} waits without limit for a receive (rnr_retry 7)`
  const wait = { id: 'endless-rnr', qpns: [0x83b58b, 0x83b58c], request } as const
  const own = { queue: 1, number: 0x83b58b, wrId: 1n, postIndex: 0 }
  const old = { event: 'waits', ...at, time: 7, wait: { ...wait, text: text('block 0') } } as const
  const present = { event: 'waits', ...at, time: 7, wait: { ...wait, text: text('wr_id 1') }, posted: own } as const
  assert.deepEqual(ofToday({ ...old, own }), present)
  assert.deepEqual(ofToday(present), present, 'those of today are left alone')
})
