/*
 * Finding array-too-short: a poll of more completions than its array on the stack has room for.
 */
import { counted } from '../../../base/text.ts'
import { reportsEach } from '../detector.ts'
import { hex } from '../objects.ts'

export const createArrayDetector = reportsEach(
  'arrayTooShort',
  'array-too-short',
  {},
  ({ address, entries, room }, cq) => ({
    text: `ibv_poll_cq on ${cq.name} with num_entries ${entries}: the array of struct ibv_wc at ${hex(address)} is on the stack, and has room for at most ${counted(room, 'completion')}; more were not polled`,
  }),
)
