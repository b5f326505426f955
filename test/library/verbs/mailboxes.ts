/*
 * Mailboxes without a device.
 */
import { realClock } from '../../../src/host/event-loop/clock.ts'
import { createWaiterList } from '../../../src/library/verbs/cq/waiters.ts'
import { createMailbox, type Mailbox } from '../../../src/library/verbs/mailbox.ts'

export const mailboxOfNumbers = (): Mailbox<number> =>
  createMailbox<number>(
    { carrier: { clock: realClock, overdueTurn: () => undefined }, waiters: createWaiterList() },
    'test',
  )
