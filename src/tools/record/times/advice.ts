/*
 * What to do about the time that the sends of a queue pair took. Advice is about the phase with the most time, and only
 * given if the recording shows that it is right: each has a condition. If none is right, none is given. There is none
 * for the packets of a message itself, nor for its completion.
 */
import { type Phase, rankedPhases } from './phases.ts'
import type { QueueTimes } from './request-times.ts'

interface Advice {
  readonly text: string
  readonly isRight: (queue: QueueTimes) => boolean
}

/** READs and atomics that adapters let a queue pair have outstanding. */
const USUAL_RD_ATOMIC = 16
/** Of a queue pair whose path MTU is not in the recording. */
const DEFAULT_MTU = 4096

const isMost = (part: number, whole: number): boolean => 2 * part > whole
const sendsOf = ({ durations }: QueueTimes): number => Math.max(1, durations.count)

/** Of several that are right, the first is given. */
const advice: Readonly<Partial<Record<Phase, readonly Advice[]>>> = {
  turn: [
    {
      text: 'messages before it are long: send what must not wait over another queue pair, or use smaller messages',
      isRight: queue => queue.bytes / sendsOf(queue) > (queue.qp.pathMtu ?? DEFAULT_MTU),
    },
  ],
  device: [
    {
      text: 'the process that runs the device was busy: look at its CPU',
      isRight: ({ phases, evidence }) => isMost(phases.device - evidence.ended, phases.device),
    },
  ],
  receiver: [
    {
      text: 'the peer posts its receives soon, but the sender waits on: connect the peer with a smaller min_rnr_timer',
      isRight: ({ phases, evidence }) => isMost(evidence.receiveReady, phases.receiver),
    },
    {
      text: "post the peer's receives earlier, and as many as messages can be under way",
      isRight: ({ notReady }) => notReady > 0,
    },
  ],
  loss: [
    {
      text: 'find where packets are lost; a shorter timeout of the queue pair notices a loss earlier',
      isRight: ({ lost, phases, evidence }) => lost > 0 && isMost(evidence.untold, phases.loss),
    },
    { text: 'find where packets are lost', isRight: ({ lost }) => lost > 0 },
  ],
  answer: [
    {
      text: 'set IBV_SEND_FENCE only on requests that need the data of earlier READs: most of these do not send it',
      isRight: ({ phases, evidence }) =>
        isMost(evidence.fence, phases.answer) && isMost(evidence.fenced - evidence.fencedForData, evidence.fenced),
    },
    {
      text: 'connect with a larger max_rd_atomic and max_dest_rd_atomic',
      isRight: ({ phases, evidence, qp: { maxRdAtomic = USUAL_RD_ATOMIC } }) =>
        isMost(evidence.reads, phases.answer) && maxRdAtomic < USUAL_RD_ATOMIC,
    },
    {
      text: 'find where packets are lost: the window shrinks with each loss, and sends wait for it',
      isRight: ({ phases, evidence, lost }) => isMost(evidence.window, phases.answer) && lost > 0,
    },
    {
      text: 'post several requests before waiting for the first: most were outstanding alone',
      isRight: queue => sendsOf(queue) > 1 && isMost(queue.evidence.alone, sendsOf(queue)),
    },
  ],
  program: [
    {
      text: 'poll earlier, or from a thread of its own; a program that waits for events is woken late on a busy machine',
      isRight: ({ evidence: { notPolled, polled } }) => isMost(notPolled, polled),
    },
  ],
}

/** A clause without its full stop; undefined: none is right. */
export const adviceOf = (queue: QueueTimes): string | undefined => {
  const [[worst] = []] = rankedPhases(queue.phases)
  return worst === undefined ? undefined : advice[worst]?.find(({ isRight }) => isRight(queue))?.text
}
