/*
 * What work requests do, against the tables of the InfiniBand Architecture Specification (volume 1, 9.4; annex A19).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AccessFlags } from '../../src/spec/enums.ts'
import {
  countsAsRead,
  hasImmediate,
  isAtomic,
  isRemote,
  remoteRights,
  returnsData,
  takesReceive,
  WrOpcode,
} from '../../src/spec/work.ts'

const opcodes = Object.entries(WrOpcode.values)
const namesOf = (has: (opcode: number) => boolean): string =>
  opcodes
    .filter(([, opcode]) => has(opcode))
    .map(([name]) => name)
    .join(' ')

test('work requests do what the specification says', () => {
  const atomics = 'ATOMIC_CMP_AND_SWP ATOMIC_FETCH_AND_ADD'
  assert.equal(namesOf(isAtomic), atomics)
  assert.equal(namesOf(isRemote), `RDMA_WRITE RDMA_WRITE_WITH_IMM RDMA_READ ${atomics} FLUSH ATOMIC_WRITE`)
  assert.equal(namesOf(returnsData), `RDMA_READ ${atomics}`)
  assert.equal(namesOf(countsAsRead), `RDMA_READ ${atomics} FLUSH ATOMIC_WRITE`)
  assert.equal(namesOf(hasImmediate), 'RDMA_WRITE_WITH_IMM SEND_WITH_IMM')
  assert.equal(namesOf(takesReceive), 'RDMA_WRITE_WITH_IMM SEND SEND_WITH_IMM SEND_WITH_INV')
  for (const [, opcode] of opcodes) assert.equal(remoteRights(opcode) !== 0, isRemote(opcode))
  const { FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values
  assert.equal(remoteRights(WrOpcode.values.FLUSH), FLUSH_GLOBAL | FLUSH_PERSISTENT)
})

test('a receive, and numbers that are no opcode, do none of it', () => {
  for (const opcode of [-1, 10, 13, 16, 31, 32, 37, 0x8000_0005, 2 ** 32 - 1])
    for (const has of [isAtomic, isRemote, returnsData, countsAsRead, hasImmediate, takesReceive])
      assert.equal(has(opcode), false, `${has.name} ${opcode}`)
})
