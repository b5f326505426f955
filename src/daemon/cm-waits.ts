/*
 * Waits of programs for calls on identifiers of rdma_cm: a request that its program has not answered, which the peer
 * waits for, and events that were delivered and not read.
 */
import type { ContextWait } from '../core/driver-contract.ts'
import type { Context } from '../core/model.ts'
import type { Identifier } from '../services/rdma-cm/identifier.ts'
import type { RdmaCm } from '../services/rdma-cm/rdma-cm.ts'
import type { Wait } from '../spec/check/waits.ts'
import { counted } from '../spec/text.ts'
import { addressText, isSameAddress } from '../transport/wire/address.ts'

const portOf = ({ source }: Identifier): number | undefined => source?.port

const endOf = (address: Uint8Array | undefined, port?: number): string =>
  `${address === undefined ? 'an unknown address' : addressText(address)}${port === undefined ? '' : `, port ${port}`}`

const contextOf = ({ object }: Identifier): Context | undefined => object?.context

/** The identifier of the same daemon that has sent a request; undefined: another daemon's. */
const senderOf = (request: Identifier, ids: readonly Identifier[]): Identifier | undefined =>
  ids.find(
    id =>
      id !== request &&
      !id.isRequest &&
      id.state === 'CONNECT' &&
      id.destination?.port === portOf(request) &&
      id.localGid !== undefined &&
      request.remoteGid !== undefined &&
      isSameAddress(id.localGid, request.remoteGid),
  )

type Rule = (id: Identifier, ids: readonly Identifier[]) => readonly (readonly [Identifier, Wait['text']])[]

/** Each kind of wait, and the identifiers whose programs wait. */
const rules: readonly Rule[] = [
  (id, ids) => {
    if (!id.isUnaccepted || id.state !== 'CONNECT') return []
    const isUnread = id.listener !== undefined
    const at = endOf(id.localGid, portOf(id))
    const why = isUnread
      ? 'its program has not read CONNECT_REQUEST (rdma_get_cm_event)'
      : 'its program has read CONNECT_REQUEST, and has called neither rdma_accept nor rdma_reject'
    const owner = id.listener ?? id
    const sender = senderOf(id, ids)
    return [
      [owner, `a connection request at ${at} from ${endOf(id.remoteGid)} has no answer: ${why}`] as const,
      ...(sender === undefined
        ? []
        : [[sender, `the request of rdma_connect to ${at} has no answer: ${why}`] as const]),
    ]
  },
  id =>
    id.unreadEvents > 0 && !id.isListening
      ? [
          [
            id,
            `${counted(id.unreadEvents, 'event')} of an identifier of rdma_cm in state ${id.state} ${id.unreadEvents === 1 ? 'was' : 'were'} delivered, and not read (rdma_get_cm_event)`,
          ],
        ]
      : [],
]

/** The waits of all programs for calls on identifiers, in no order. */
export function* waitsOfCm(cm: RdmaCm): Generator<ContextWait> {
  const ids = [...cm.boundIdentifiers()]
  for (const rule of rules)
    for (const id of ids)
      for (const [waiting, text] of rule(id, ids)) {
        const context = contextOf(waiting)
        if (context !== undefined && waiting.object !== undefined)
          yield {
            context,
            wait: { id: 'connection-waits', text, cmId: waiting.object.handle },
            channel: waiting.object.events?.route.channel,
            // A program may close a channel long after the last look.
            holds: () =>
              [...cm.boundIdentifiers()].includes(waiting) &&
              rule(id, ids).some(([one, now]) => one === waiting && now === text),
          }
      }
}
