/*
 * Approximate bytes of memory for an object of each class, with the records of the driver and of the daemon about it,
 * but without the memory of rings and of queued messages. They are charged to the client's account. Most were measured
 * in a daemon with one client that creates 10,000 objects of a class, and rounded up.
 */

import { isQueuePairClass } from '../../spec/classes/ids.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'

const BYTES: Readonly<Record<string, number>> = {
  pd: 640,
  mr: 1280,
  mw: 512,
  ah: 1024,
  cq: 2048,
  srq: 2560,
  xrc_srq: 2560,
  xrcd: 768,
  cm_id: 4096,
  ip_interface: 10240,
  ip_socket: 3072,
}
const QUEUE_PAIR_BYTES = 3840
const OTHER_BYTES = 1024

export const objectBytes = ({ name }: ObjectClass): number =>
  BYTES[name] ?? (isQueuePairClass(name) ? QUEUE_PAIR_BYTES : OTHER_BYTES)
