/*
 * The table of causes, and docs/reference/vendor-errors.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  type CauseName,
  causeOfCode,
  causes,
  causeText,
  createCause,
  vendorErrorOf,
} from '../../src/spec/check/causes.ts'
import { AccessFlags, AsyncEventType, QpState } from '../../src/spec/enums.ts'
import { WcStatus, WrOpcode } from '../../src/spec/work.ts'
import { repoRoot } from '../paths.ts'

const names = Object.keys(causes) as CauseName[]

test('codes are distinct, fit vendor_err, and map back to their causes', () => {
  assert.equal(new Set(names.map(vendorErrorOf)).size, names.length)
  for (const name of names) {
    assert.ok(vendorErrorOf(name) > 0 && vendorErrorOf(name) < 0x1000, name)
    assert.equal(causeOfCode(vendorErrorOf(name)), name)
  }
  assert.equal(causeOfCode(0), undefined)
})

test('the results of a cause are completion statuses and asynchronous events', () => {
  for (const name of names)
    for (const result of causes[name].results)
      assert.ok(result in WcStatus.values || result in AsyncEventType.values, `${name}: ${result}`)
})

test('exactly the completion statuses of our devices, and those that rules inject, have causes', () => {
  const ofReliableDatagrams = ['LOC_EEC_OP_ERR', 'LOC_RDD_VIOL_ERR', 'INV_EECN_ERR', 'INV_EEC_STATE_ERR']
  const unused = ['SUCCESS', 'REM_ABORT_ERR', ...ofReliableDatagrams]
  const results = new Set<string>(names.flatMap(name => [...causes[name].results]))
  for (const status of Object.keys(WcStatus.values)) assert.equal(results.has(status), !unused.includes(status), status)
})

test('sentences show keys and addresses in hexadecimal, and rights, opcodes and states by name', () => {
  const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
  assert.equal(
    causeText(createCause('RKEY_NO_RIGHT', { key: 0x753, right: REMOTE_WRITE | REMOTE_ATOMIC })),
    'rkey 0x753 has no REMOTE_WRITE and REMOTE_ATOMIC',
  )
  assert.equal(
    causeText(
      createCause('RKEY_RANGE', {
        key: 0x753,
        accessStart: 0x7fff_ffff_fff0n,
        accessEnd: 0x8000_0000_0010n,
        rangeStart: 0,
        rangeEnd: 16,
      }),
    ),
    'rkey 0x753: [0x7ffffffffff0, 0x800000000010) is outside [0x0, 0x10)',
  )
  assert.equal(
    causeText(createCause('BAD_OPCODE', { opcode: WrOpcode.values.RDMA_READ })),
    'this type of queue pair has no READ',
  )
  assert.equal(
    causeText(createCause('FLUSHED', { state: QpState.values.ERR })),
    'the queue pair moved to ERR after an error',
  )
})

test('sentences have no full stop', () => {
  for (const name of names) assert.doesNotMatch(causes[name].text, /[.!]$/, name)
})

const page = (): string => {
  const rows = names.map(name => {
    const { code, results, text } = causes[name]
    const sentence = text.replace(/\{(\w+)(?::\w+)?\}/g, '*$1*')
    return `| 0x${code.toString(16)} | \`${name}\` | ${results.map(one => `\`${one}\``).join(' ') || '–'} | ${sentence} |`
  })
  return `${[
    '# Vendor errors',
    '',
    'A failed completion has the code of its cause in `vendor_err`; a successful one has 0, as all completions of',
    "Linux's rxe have. Codes keep their meaning from version to version. The sentence with its numbers is in `userdma trace`, in",
    "the daemon's log and in `userdma stat --qps` ([the command line](cli.md#causes-of-failures)).",
    '',
    "If the peer refuses a request, the requester's completion has the cause at the peer (0x4…, 0x5…, or 0x2… for a bad",
    'receive buffer), provided that the peer is a queue pair of the same daemon or process. Otherwise it has only the kind of',
    "NAK (0x301 to 0x304), and the peer's daemon logs the cause.",
    '',
    "Programs on mlx5 devices read an adapter's vendor syndrome instead, so that their logs are those of production: 0xf9",
    '(flushed), 0x81, 0x87, 0x88, 0x89, 0x8a, and 0x32 with LOC_PROT_ERR of a receive; 0 where none is known for sure. On',
    "EFA devices it is EFA's status. The cause of these failures too is in the trace, the log and `userdma stat`.",
    '',
    '| `vendor_err` | cause | completions and events | sentence |',
    '|---|---|---|---|',
    ...rows,
  ].join('\n')}\n`
}

test('docs/reference/vendor-errors.md is the table', () => {
  const path = join(repoRoot, 'docs', 'reference', 'vendor-errors.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
