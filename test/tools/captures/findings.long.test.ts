/*
 * Our own failures as ground truth: examples of findings (docs/findings) whose cause the wire shows run with
 * `userdma trace --pcap`. From the file alone, whole, cut to 96 bytes, with frames missing and begun in the middle, the
 * problems must name the finding, or be notes; never another failure.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { captureCause } from '../../../src/spec/captures.ts'
import { readCapture } from '../../captures.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, temporaryFolder, userdma } from '../../system/programs.ts'
import { pcapOf, problemsIn, randomOf } from './build.ts'

const NAMES = [
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

for (const name of NAMES) {
  const program = join(repoRoot, 'build', 'findings', name)
  test(name, { skip: lacking(program) }, t => {
    const file = join(temporaryFolder(t), 'packets.pcapng')
    spawnSync(userdma, ['trace', '--private', '--pcap', file, '--', program])
    const packets = readCapture(readFileSync(file))
    const finding = name.replace(/--.*/, '')
    const check = (variant: string, bytes: Uint8Array, mustName: boolean): void => {
      const failures = problemsIn(bytes).filter(({ cause }) => captureCause(cause).severity === 'failure')
      for (const { cause } of failures)
        assert.ok(
          captureCause(cause).findings.some(one => one === finding),
          `${variant}: ${cause}`,
        )
      if (mustName) assert.ok(failures.length > 0, variant)
    }
    check('whole', pcapOf(packets), true)
    check('cut', pcapOf(packets, { snap: 96 }), true)
    for (let seed = 1; seed <= 20; seed++) {
      const random = randomOf(seed)
      check(`missing, seed ${seed}`, pcapOf(packets.filter(() => random() > 0.05)), false)
    }
    for (let from = 1; from < packets.length; from++) check(`from ${from}`, pcapOf(packets.slice(from)), false)
  })
}
