/*
 * Our own failures as ground truth: all examples of findings (docs/findings) run with `userdma trace --pcap`. From the
 * file alone, whole, cut to 96 bytes, with frames missing, begun in the middle, and as two captures with a clock
 * difference, the problems must name the finding, or be notes; never another failure. docs/reference/captures.md has
 * the results; with WRITE_DOCS set, this test writes them there.
 *
 * The rules were written with the examples of KNOWN in view. The others are held out: they may only confirm.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CaptureCause, captureCause } from '../../../src/spec/captures.ts'
import { AddressTable } from '../../../src/tools/captures/addresses.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { compareCaptures } from '../../../src/tools/captures/together.ts'
import { readCapture } from '../../captures.ts'
import { scaled } from '../../limits.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, temporaryFolder, userdma } from '../../system/programs.ts'
import { pcapOf, pointOf, problemsIn, randomOf } from './build.ts'

const KNOWN = [
  'atomic-misaligned',
  'invalid-request',
  'no-answer',
  'no-peer-qp',
  'no-peer-qp--byte-order',
  'no-receive-posted',
  'path-mtu-mismatch',
  'peer-connected-elsewhere',
  'peer-ended',
  'peer-in-error',
  'peer-not-ready',
  'peer-refused',
  'port-byte-order',
  'psn-mismatch',
  'psn-mismatch--byte-order',
  'qp-no-right',
  'rd-atomic-exceeds',
  'receive-too-short',
  'remote-out-of-bounds',
  'remote-unmapped',
  'rkey-no-right',
  'rkey-other-pd',
  'service-mismatch',
  'stale-rkey',
  'unknown-rkey',
  'window-not-bound',
]
/**
 * The queue pair is destroyed before the first RNR NAK, or, on a busy machine, after it: then the wire shows
 * `rnr-last`.
 */
const EITHER = 'sends-lost--destroyed'
/** Runs of an example of KNOWN until its wire shows a failure: on a busy machine, READs may be answered one by one. */
const RUNS = 5
/** Examples that hang until they are ended: each takes this long. */
const SECONDS = 30
const SEEDS = 20
/** Captures with more packets are begun at so many places. */
const STARTS = 200
const OFFSET = 10_000_000n

const folder = join(repoRoot, 'build', 'findings')
const names = readdirSync(join(repoRoot, 'docs', 'findings'))
  .filter(file => file.endsWith('.c'))
  .map(file => file.replace('.c', ''))
const rows: string[] = []

/** What a list of causes is in the table. */
const cell = (causes: readonly CaptureCause[]): string =>
  causes.length === 0
    ? 'nothing'
    : causes.map(cause => (captureCause(cause).unknown === undefined ? cause : `${cause}, unknown why`)).join('; ')

for (const name of names) {
  const program = join(folder, name)
  test(name, { skip: lacking(program) }, async t => {
    const file = join(temporaryFolder(t), 'packets.pcapng')
    const isKnown = KNOWN.includes(name)
    const captured = (): CapturedPacket[] => {
      spawnSync(userdma, ['trace', '--private', '--pcap', file, '--', program], { timeout: scaled(1000 * SECONDS) })
      return existsSync(file) ? readCapture(readFileSync(file)) : []
    }
    let packets = captured()
    if (packets.length === 0) return
    const finding = name.replace(/--.*/, '')
    /** Failures, of which each must name the finding. */
    const failures = (variant: string, some: readonly CapturedPacket[], snap?: number): CaptureCause[] => {
      const file = pcapOf(some, snap === undefined ? {} : { snap })
      const causes = problemsIn(file)
        .map(({ cause }) => cause)
        .filter(cause => captureCause(cause).severity === 'failure')
      for (const cause of causes)
        assert.ok(
          captureCause(cause).findings.some(one => one === finding),
          `${variant}: ${cause}`,
        )
      return [...new Set(causes)]
    }
    let whole = failures('whole', packets)
    for (let runs = 1; isKnown && whole.length === 0 && runs < RUNS; runs++) {
      packets = captured()
      whole = failures('whole', packets)
    }
    const share = (variants: readonly (readonly CaptureCause[])[]): string => {
      const same = variants.filter(causes => cell(causes) === cell(whole)).length
      return same === variants.length ? 'same' : `same in ${same} of ${variants.length}`
    }
    const cut = share([failures('cut', packets, 96)])
    const missing = share(
      Array.from({ length: SEEDS }, (_, seed) => {
        const random = randomOf(seed + 1)
        return failures(
          `missing, seed ${seed + 1}`,
          packets.filter(() => random() > 0.01),
        )
      }),
    )
    const starts = Math.min(packets.length - 1, STARTS)
    const begun = share(
      Array.from({ length: starts }, (_, i) => {
        const from = Math.ceil(((i + 1) * (packets.length - 1)) / starts)
        return failures(`from ${from}`, packets.slice(from))
      }),
    )
    const apart = packets.map(packet => ({ ...packet, time: packet.time! + OFFSET }))
    const addresses = new AddressTable()
    const points = [pcapOf(packets), pcapOf(apart)].map((one, i) => pointOf(`${i}`, one, addresses))
    const { clocks, lost } = await compareCaptures(points, addresses, {})
    const clock = clocks[1]?.clock
    if (clock !== undefined) {
      assert.deepEqual(lost, [])
      assert.ok(Math.abs(clock.offset - Number(OFFSET)) <= (clock.offsetError ?? 0) + 1000, `${clock.offset}`)
    }
    if (isKnown) assert.ok(whole.length > 0, 'a failure that the wire shows')
    const together = clock === undefined ? 'too few packets' : '10 ms, none lost'
    rows.push(
      `| \`${name}\` | ${packets.length < 50 ? packets.length : 'many'} | ${cell(whole)} | ${cut} | ${missing} | ${begun} | ${together} | ${isKnown ? '' : 'yes'} |`,
    )
  })
}

test('docs/reference/captures.md has these results', () => {
  const page = join(repoRoot, 'docs', 'reference', 'captures.md')
  const text = readFileSync(page, 'utf8')
  const start = text.indexOf('| example |')
  const head = '| example | packets | whole | 96 bytes | 1 % missing | begun later | two captures | held out |'
  const table = `${[head, head.replaceAll(/[^|]+/g, '---'), ...rows].join('\n')}\n`
  if (process.env.WRITE_DOCS !== undefined) {
    writeFileSync(page, text.slice(0, start) + table)
    return
  }
  // Numbers of packets, and of places where a capture was begun, depend on timers.
  const named = (of: string): string[] =>
    of
      .split('\n')
      .filter(line => line.startsWith('| `') && !line.startsWith(`| \`${EITHER}\``))
      .map(line => {
        const [, example, , whole] = line.split('|')
        return `${example!.trim()}: ${whole!.trim()}`
      })
  assert.deepEqual(named(table), named(text.slice(start)), 'in the long run, run this test with WRITE_DOCS=1')
})
