/*
 * What tools say of a device that a fault rule has silenced (`DeviceTaps.silenced`).
 */
import type { Wait } from '../spec/check/waits.ts'
import type { Device } from './model.ts'

const ADVICE =
  'limit the time for which the program waits for a completion, and give the device up after it: an adapter may die like this'

/** The wait of a program for a queue pair of which nothing is told any more; undefined: the device is not silenced. */
export const silentWait = ({ name, taps: { silenced } }: Device, qpn: number): Wait | undefined => {
  if (silenced === undefined) return undefined
  const { rule, isHalf } = silenced
  const text = `QP 0x${qpn.toString(16)} waits for a completion of ${name}, which writes none any more${isHalf ? ' for every second queue pair' : ''}, and tells nothing: fault rule ${rule.number} (${rule.text})`
  return { id: 'idle-queues', severity: 'warning', text, qpns: [qpn], advice: ADVICE }
}
