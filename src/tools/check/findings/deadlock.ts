/*
 * Threads that wait for each other: with what one of them has lost before.
 */
import type { ThreadWait, ThreadWaitKind } from '../../../spec/check/thread-waits.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { dropBehind, lostIn } from '../lost-work.ts'

/** What breaks a wait of a chain, by its kind; the first that is in the chain is said. */
const breaks: readonly (readonly [kinds: readonly ThreadWaitKind[], advice: string])[] = [
  [['batch'], 'end the batch by ibv_wr_complete before its completions are polled: nothing of it is posted before'],
  [['mutex', 'rwlock'], 'release the lock before the thread waits for an event, a message or another lock'],
  [
    ['join'],
    'let the thread end before it is joined: by an event or message that it waits for, or a descriptor beside',
  ],
  [
    ['poll', 'channel'],
    'find in the story what each of them waits for: a message that the other has not sent, or a completion that was polled before',
  ],
]

const adviceForChain = (chain: readonly ThreadWait[]): string | undefined =>
  breaks.find(([kinds]) => chain.some(({ kind }) => kinds.includes(kind)))?.[1]

/** Several threads poll the CQ. */
const ADVICE_FOR_SHARED =
  'let a thread that takes the completion of another one pass it on, or give each thread a CQ of its own'

/** The message was dropped. */
const ADVICE_FOR_DROP =
  'post as many receives as messages may come at once, or let the sender wait for credits; else count on loss, and wait with a timeout'

export const createDeadlockDetector = ({ objects }: DetectorServices): Detector => ({
  refines: {
    deadlock({ wait: { text, graph, severity, advice }, at: { context } }) {
      const { details, moments, isShared } = lostIn(objects, context)
      if (graph === undefined) return { details, moments }
      const { first, threads } = graph
      const chain = first.flatMap(index => threads[index] ?? [])
      const waiting = threads[first[0] ?? 0]
      const receivers = chain.filter(({ kind }) => kind === 'poll' || kind === 'channel').map(({ pid }) => pid)
      const drop = dropBehind(objects, new Set(receivers))
      const ofChain = isShared ? ADVICE_FOR_SHARED : adviceForChain(chain)
      return {
        ...(waiting && { where: { stack: waiting.stack, action: 'waits' } }),
        ...(drop && { text: `${text}: ${drop.text}` }),
        advice: drop ? ADVICE_FOR_DROP : severity === 'note' ? advice : ofChain,
        moments,
        details,
        objects: [drop?.qp],
      }
    },
  },
})
