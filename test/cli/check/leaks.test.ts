/*
 * The leaks of a report of `userdma check`.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { leakBlocks } from '../../../src/cli/check/leaks.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { Symbols } from '../../../src/tools/check/finding-text.ts'

const leakTexts = (...args: Parameters<typeof leakBlocks>): string[] => leakBlocks(...args).map(({ text }) => text)

const symbols: Symbols = { framesOf: stack => stack.map(name => ({ function: name, file: 'a.c', line: 7 })) }
const leak = (name: string, verb: string, stack: readonly string[], pid = 5): Finding => ({
  number: 1,
  id: 'leak',
  severity: 'warning',
  text: `${name} was never ${verb}`,
  left: name.slice(0, 2),
  details: [],
  program: { pid, command: 'server' },
  device: 'rxe0',
  time: 0,
  moments: [{ action: 'created', time: 0, stack }],
  objects: [],
})
const qps = [0x11, 0x12, 0x13].map(qpn => leak(`QP 0x${qpn.toString(16)}`, 'destroyed', ['ibv_create_qp', 'accept']))
const many = [...qps, leak('MR 0x5 of 8 bytes', 'deregistered', ['ibv_reg_mr', 'main']), leak('PD 0', 'destroyed', [])]

test('many leaks of a program are one block, with a line for each kind and place', () => {
  assert.deepEqual(leakTexts(many, symbols, false), [
    [
      'userdma check: warning leak: process 5 (server), rxe0: 5 objects were never destroyed',
      '  3 QPs: ibv_create_qp (a.c:7) < accept (a.c:7)',
      '  1 MR: ibv_reg_mr (a.c:7) < main (a.c:7)',
      '  1 PD',
      '  advice: destroy objects in reverse order of creation before ibv_close_device; `--notes` shows each leak',
      '',
      '',
    ].join('\n'),
  ])
})

test('few leaks of a program, and with --notes all, are printed one by one', () => {
  assert.equal(leakTexts(many, symbols, true).length, 5)
  const others = leak('CQ 2', 'destroyed', ['ibv_create_cq'], 6)
  const texts = leakTexts([...many.slice(0, 4), others], symbols, false)
  assert.equal(texts.length, 5)
  assert.match(
    texts[4]!,
    /process 6 \(server\), rxe0: CQ 2 was never destroyed\n {2}created\n {4}#0 ibv_create_cq at a.c:7\n/,
  )
})
