/*
 * The device's rings of a context: a copy of the posted requests in the layout of the engine's work source
 * (rxe/rings/). The program's queues are read once, when its doorbell record changes, as an adapter fetches requests.
 */
import { bufferMemory } from '../../core/memory/mappable-memory.ts'
import type { RingMemory } from '../../core/memory/rings.ts'
import type { Account, Context } from '../../core/model.ts'
import { mayChargeMemory, releaseMemory } from '../../core/objects/limits.ts'
import { compactLayout } from '../../spec/drivers/compact-rings.ts'
import type { RingLayout } from '../../spec/drivers/ring-layout.ts'
import { AddressVector } from '../../spec/drivers/rxe-rings.ts'
import { CallError } from '../../spec/errno.ts'
import type { RxeContext } from '../rxe/context.ts'

/** Requests of datagrams have their address, as mlx5's have. */
const datagramLayout: RingLayout = {
  ...compactLayout,
  send: { ...compactLayout.send, UD_VECTOR: compactLayout.send.SGE, SGE: compactLayout.send.SGE + AddressVector.BYTES },
}

const shadowMemory = (layout: RingLayout, account: Account | undefined): RingMemory => {
  const memory = bufferMemory()
  return {
    layout,
    allocate(bytes) {
      const headerBytes = layout.header.DATA
      const area = memory.allocate(headerBytes + bytes)
      if (!mayChargeMemory(account, area.length))
        throw new CallError('ENOMEM', `a queue needs ${area.length} bytes of the device, more than the account's share`)
      return { area, headerAt: 0, elementsAt: headerBytes }
    },
    free: ({ area }) => releaseMemory(account, area.length),
  }
}

/** Sets the rings of a context, if it has none. */
export const prepareRings = (context: Context): void => {
  context.state ??= {
    rings: shadowMemory(compactLayout, context.account),
    datagramRings: shadowMemory(datagramLayout, context.account),
  } satisfies RxeContext
}
