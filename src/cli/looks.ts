/*
 * Looks at a daemon at intervals, for `userdma top` and `userdma stat --watch`.
 */
import { NoDaemonError } from '../daemon/client/errors.ts'
import type { ToolSession } from '../daemon/client/tool-session.ts'
import type { WaitStat } from '../spec/check/waits.ts'
import { applyPatch } from '../uapi/merge-patch.ts'
import type { QpStat, Stat, StatView } from '../uapi/tool.ts'

/** One look at a daemon; `time` in milliseconds. Queue pairs and waits are empty unless they were asked for. */
export interface Look {
  readonly time: number
  readonly stat: Stat
  readonly qps: readonly QpStat[]
  readonly waits: readonly WaitStat[]
}

interface Looks {
  /** Waits for a new look, or takes the newest unseen one; undefined when the daemon has ended. */
  next(): Promise<Look | undefined>
  /** Ends the looks. */
  end(): Promise<void>
}

const lookOf = ({ time, daemon, devices, qps = {}, waits = [] }: StatView): Look => ({
  time,
  stat: { ...daemon, devices: Object.values(devices) },
  qps: Object.values(qps),
  waits,
})

/** Resolves also if the daemon has ended. */
const unlessEnded = <T>(promise: Promise<T>): Promise<T | undefined> =>
  promise.catch(error => {
    if (error instanceof NoDaemonError) return undefined
    throw error
  })

/** The first look is at once, the others each `seconds`. `qps`: with queue pairs and waits. */
export const openLooks = async (
  client: Pick<ToolSession, 'subscribe' | 'ended'>,
  seconds: number,
  qps: boolean,
): Promise<Looks> => {
  let view: StatView | undefined
  let isNew = false
  let hasEnded = false
  let notify = (): void => {}
  void client.ended.then(() => {
    hasEnded = true
    notify()
  })
  const interval = Math.round(seconds * 1000)
  const subscribing = client.subscribe('stat', { interval, qps }, record => {
    if ('lost' in record) return
    view = 'snapshot' in record ? record.snapshot : (applyPatch(view, record.change) as StatView)
    isNew = true
    notify()
  })
  const subscription = await unlessEnded(subscribing)
  return {
    async next() {
      while (!isNew) {
        if (hasEnded || subscription === undefined) return undefined
        await new Promise<void>(resolve => {
          notify = resolve
        })
      }
      isNew = false
      return view && lookOf(view)
    },
    async end() {
      if (subscription !== undefined) await unlessEnded(subscription.end())
    },
  }
}
