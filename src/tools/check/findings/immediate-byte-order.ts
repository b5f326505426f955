/*
 * Finding immediate-byte-order: immediate data in the order of the host.
 */
import { reportsEach } from '../detector.ts'
import { hex } from '../objects.ts'
import { POSTED } from '../reporting.ts'

export const createImmediateDetector = reportsEach(
  'immediateInHostOrder',
  'immediate-byte-order',
  POSTED,
  ({ wrId, data }, qp) => ({
    text: `imm_data of send wr_id ${wrId} of ${qp.name} is ${hex(data >>> 0)} in network byte order, which the receiver's ntohl returns`,
  }),
)
