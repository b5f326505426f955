/*
 * Findings about requests as the program has posted them, which the preload library sees and the device does not: requests
 * of one list with the same elements, a list that is posted again, and immediate data in the order of the host.
 */
import { requestName } from '../../spec/check/causes.ts'
import type { FindingId } from '../../spec/check/findings.ts'
import type { Misuse } from '../../spec/check/program-events.ts'
import { MisuseKind, PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { returnsData } from '../../spec/work.ts'
import { hex, type KnownObject } from './objects.ts'
import type { FindingContent } from './reporting.ts'

type Content = FindingContent & { readonly id: FindingId }

const sharedElementsOf = ({ queue, index: count, wrId, more: opcode }: Misuse, owner: KnownObject): Content => {
  const isSend = queue === PostQueue.SEND
  const isRead = isSend && returnsData(opcode)
  const kind = isSend ? requestName(opcode) : 'receive'
  const result = isRead
    ? 'all results are written to the same memory'
    : isSend
      ? 'all send the same bytes'
      : 'their messages overwrite each other'
  return {
    id: 'shared-elements',
    text: `${count} requests of one list of ${owner.name}, from ${kind} wr_id ${wrId} on, have the same sg_list and different wr_ids: ${result}`,
    // Receives may be for messages without bytes, and sends may be of the same bytes.
    severity: isRead ? 'warning' : 'note',
  }
}

const immediateOf = ({ index: value, wrId }: Misuse, owner: KnownObject): Content => ({
  id: 'immediate-byte-order',
  text: `imm_data of send wr_id ${wrId} of ${owner.name} is ${hex(value >>> 0)} in network byte order, which the receiver's ntohl returns`,
})

const postedAgainOf = ({ queue, index: taken, wrId }: Misuse, owner: KnownObject): Content => ({
  id: 'list-posted-again',
  text: `a list of ${queue === PostQueue.SEND ? 'sends' : 'receives'} of ${owner.name} is posted again from its head, wr_id ${wrId}: the post before had taken ${counted(taken, 'request')} of it, and refused only the rest`,
})

/** The finding about a list of requests; undefined: another misuse. */
export const postedListOf = (misuse: Misuse, owner: KnownObject): Content | undefined => {
  switch (misuse.kind) {
    case MisuseKind.SHARED_ELEMENTS:
      return sharedElementsOf(misuse, owner)
    case MisuseKind.IMMEDIATE:
      return immediateOf(misuse, owner)
    case MisuseKind.POSTED_AGAIN:
      return postedAgainOf(misuse, owner)
    case MisuseKind.IN_HANDLER:
      return { id: 'poll-in-handler', text: `ibv_poll_cq on ${owner.name} is called in a signal handler` }
    default:
      return undefined
  }
}
