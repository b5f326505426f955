/*
 * The table of work operations (spec/work.ts) for all services as typed arrays, indexed by `operationOf`. An operation
 * that the service does not have is of kind NONE. In BTH.opcode, the upper three bits are `serviceBits` of the service.
 */
import { opcodeHeaderBytes, operationCode } from '../../spec/wire/opcodes.ts'
import { hasOperation, SERVICE_COUNT, Service, serviceBits } from '../../spec/wire/services.ts'
import { SendKind, sendOperations, WrOpcode } from '../../spec/work.ts'

const OPCODES = 256
const TABLE_ENTRIES = SERVICE_COUNT * OPCODES

/**
 * Index in the tables of an ibv_wr_opcode (any u32). The entry of an unknown opcode is zero; those above 255 share the
 * entry of opcode 255, which is unknown too.
 */
export const operationOf = (service: number, opcode: number): number =>
  opcode < OPCODES ? service * OPCODES + opcode : OPCODES - 1

/** Header bytes that every request packet of a connected service has; 0 for UD. */
export const basicHeaderBytes = Uint8Array.from(
  serviceBits,
  bits => opcodeHeaderBytes[bits | operationCode.SEND_MIDDLE],
)

export const sendKindOf = new Uint16Array(TABLE_ENTRIES)
/** Lower five bits of BTH.opcode of the packets of a message. */
export const firstOf = new Uint8Array(TABLE_ENTRIES)
export const middleOf = new Uint8Array(TABLE_ENTRIES)
export const lastOf = new Uint8Array(TABLE_ENTRIES)
export const onlyOf = new Uint8Array(TABLE_ENTRIES)

for (const service of Object.values(Service)) {
  // An XRC target QP has no send queue.
  if (service === Service.XRC_TGT) continue
  if (service === Service.RAW) {
    for (const opcode of [WrOpcode.values.SEND, WrOpcode.values.DRIVER1])
      sendKindOf[operationOf(service, opcode)] = sendOperations[opcode]!.kind
    continue
  }
  for (const [opcode, operation] of Object.entries(sendOperations)) {
    // Of the services with a send queue, only UD has no local operations.
    if (operation.kind === SendKind.LOCAL ? service === Service.UD : !hasOperation(service, operation.only)) continue
    const index = operationOf(service, +opcode)
    sendKindOf[index] = operation.kind
    firstOf[index] = operation.first
    middleOf[index] = operation.middle
    lastOf[index] = operation.last
    onlyOf[index] = operation.only
  }
}
