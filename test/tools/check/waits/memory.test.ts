/*
 * The memory that a loop reads, with the WRITE that was meant for it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AccessFlags } from '../../../../src/spec/enums.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { requestScenario } from '../requests.ts'

const { REMOTE_WRITE } = AccessFlags.values
const { RDMA_WRITE, RDMA_READ } = WrOpcode.values
const START = 0x40000
const KEY = 0x900

test('an address that a loop reads is told with the WRITE that wrote it last, or ended or began beside it', () => {
  for (const [name, requests, told] of [
    ['ends before it', [[64, 36]], 'WRITE wr_id 1 of QP 0x1, 36 bytes, ended right before it'],
    ['a word short', [[60, 36]], 'WRITE wr_id 1 of QP 0x1, 36 bytes, ended 4 bytes before it'],
    ['begins behind it', [[101, 8]], 'WRITE wr_id 1 of QP 0x1, 8 bytes, began right behind it'],
    ['far away', [[0, 92]], undefined],
    ['another value', [[96, 8]], 'WRITE wr_id 1 of QP 0x1, 8 bytes, has written there last'],
    [
      'the last one',
      [
        [96, 8],
        [100, 1],
      ],
      'WRITE wr_id 2 of QP 0x1, 1 byte, has written there last',
    ],
    [
      'beside it, later',
      [
        [96, 8],
        [92, 8],
      ],
      'WRITE wr_id 1 of QP 0x1, 8 bytes, has written there last',
    ],
    ['nothing', [], undefined],
  ] as const) {
    const s = requestScenario()
    const memory = { start: BigInt(START), iova: BigInt(START), length: 4096n, access: REMOTE_WRITE }
    s.create('mr', memory, { lkey: KEY, rkey: KEY })
    for (const [i, [offset, length]] of requests.entries())
      for (const [opcode, wrId] of [
        [RDMA_WRITE, i + 1],
        [RDMA_READ, 99],
      ] as const)
        s.complete(s.post({ opcode, wrId: BigInt(wrId), remote: { address: START + offset, length, rkey: KEY } }))
    // The same addresses of another region.
    s.complete(s.post({ opcode: RDMA_WRITE, remote: { address: START + 99, length: 8, rkey: KEY + 1 } }))
    const text = s.checker.memoryAt([0], START + 100)?.text ?? ''
    assert.match(text, /^offset 100 of MR 0x900 of 4096 bytes, where peers may write/, name)
    assert.equal(text.split('; ')[1], told, name)
  }
})
