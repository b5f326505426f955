/*
 * Mailboxes without a device.
 */
import { createWaiterList } from '../../src/verbs/cq/waiters.ts'
import { createMailbox, type Mailbox } from '../../src/verbs/mailbox.ts'

export const mailboxOfNumbers = (): Mailbox<number> =>
  createMailbox<number>({ carrier: { overdueTurn: () => undefined }, waiters: createWaiterList() }, 'test')
