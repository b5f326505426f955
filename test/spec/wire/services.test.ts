/*
 * Services of queue pairs: their work requests follow from the existing opcodes (IBA table 38).
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { opcodeByNumber } from '../../../src/spec/wire/opcodes.ts'
import { hasOperation, Service, type ServiceName, serviceBits } from '../../../src/spec/wire/services.ts'
import { SendKind, sendOperations, WrOpcode } from '../../../src/spec/work.ts'
import { firstOf, lastOf, middleOf, onlyOf, operationOf, sendKindOf } from '../../../src/transport/engine/operations.ts'

const namesOf = (service: number): string[] =>
  Object.entries(WrOpcode.values)
    .filter(([, opcode]) => sendKindOf[operationOf(service, opcode)] !== SendKind.NONE)
    .map(([name]) => name)

it('a sending service has the work requests of its opcodes; a connected one also has the local ones', () => {
  const sends = ['SEND', 'SEND_WITH_IMM']
  const writes = ['RDMA_WRITE', 'RDMA_WRITE_WITH_IMM']
  const local = ['LOCAL_INV', 'BIND_MW', 'DRIVER1', 'MEMCPY']
  const unreliable = [...writes, ...sends, ...local]
  const answered = ['RDMA_READ', 'ATOMIC_CMP_AND_SWP', 'ATOMIC_FETCH_AND_ADD']
  const connected = [
    ...[...writes, ...sends, ...answered, 'LOCAL_INV', 'BIND_MW', 'SEND_WITH_INV', 'DRIVER1', 'MEMCPY', 'FLUSH'],
    'ATOMIC_WRITE',
  ]
  assert.deepEqual(namesOf(Service.RC), connected)
  assert.deepEqual(namesOf(Service.XRC_INI), connected)
  assert.deepEqual(namesOf(Service.UC), unreliable)
  assert.deepEqual(namesOf(Service.UD), sends)
  assert.deepEqual(namesOf(Service.XRC_TGT), [])
  const unknownOpcode = 0xffff_ffff
  assert.equal(sendKindOf[operationOf(Service.RC, unknownOpcode)], SendKind.NONE)
})

it('packets of a service are named like those of RC', () => {
  for (const [name, service] of Object.entries(Service)) {
    if (service === Service.RAW) continue // frames without BTH
    const prefix = name === 'DCI' ? 'RC' : name.replace(/_.*/, '')
    for (const opcode of Object.keys(sendOperations)) {
      const index = operationOf(service, +opcode)
      if (sendKindOf[index] === SendKind.NONE || sendKindOf[index] === SendKind.LOCAL) continue
      for (const table of [firstOf, middleOf, lastOf, onlyOf]) {
        if (!hasOperation(service, table[index])) {
          assert.equal(name as ServiceName, 'UD', 'only datagrams have no FIRST, MIDDLE and LAST')
          continue
        }
        const rcName = opcodeByNumber[table[index]]?.name
        assert.ok(rcName)
        assert.equal(opcodeByNumber[serviceBits[service] | table[index]]?.name, rcName.replace('RC', prefix))
      }
    }
  }
})
