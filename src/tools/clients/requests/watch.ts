/*
 * The requests of a device for several watchers: the checker and the recorder share one feed (feed.ts).
 */
import { noteFault } from '../../../core/attempt.ts'
import type { Core, Device } from '../../../core/model.ts'
import type { RequestWatcher } from '../../../spec/check/requests.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { RequestFeed } from './feed.ts'

/** What a watcher may ask. */
export type RequestPoll = Pick<
  RequestFeed,
  | 'requestOf'
  | 'reportCq'
  | 'reportContext'
  | 'reportUnpolled'
  | 'settleSends'
  | 'settleContext'
  | 'digest'
  | 'window'
  | 'end'
>

interface SharedFeed {
  readonly watchers: RequestWatcher[]
  readonly feed: RequestFeed
}

const shared = new WeakMap<Device, SharedFeed>()

/** Runs `report` for each watcher. An exception is reported, not thrown: the caller is in the middle of the device's work. */
const forwarder = (core: Core, watchers: readonly RequestWatcher[]): RequestWatcher => {
  const each = <A, B = void>(report: (watcher: RequestWatcher, a: A, b: B) => void) => {
    return (a: A, b: B): void => {
      for (const watcher of watchers)
        try {
          report(watcher, a, b)
        } catch (error) {
          noteFault(core, error)
        }
    }
  }
  return {
    posted: each((watcher, request) => watcher.posted(request)),
    ended: each((watcher, request) => watcher.ended(request)),
    completed: each((watcher, request, completion) => watcher.completed(request, completion)),
    receiveLost: each((watcher, request) => watcher.receiveLost(request)),
    receiverNotReady: each((watcher, qp) => watcher.receiverNotReady(qp)),
    polled: each((watcher, cq, count) => watcher.polled(cq, count)),
    queueReset: each((watcher, owner) => watcher.queueReset(owner)),
  }
}

/**
 * Reports the device's requests to `watcher` too, until `end` of the result is called. `scratch`: a buffer of
 * SCRATCH_BYTES; that of the first watcher is used.
 */
export const watchRequests = (device: Device, watcher: RequestWatcher, scratch: Arena): RequestPoll => {
  let entry = shared.get(device)
  if (entry === undefined) {
    const watchers: RequestWatcher[] = []
    entry = { watchers, feed: new RequestFeed(device, forwarder(device.core, watchers), scratch) }
    shared.set(device, entry)
  }
  const { watchers, feed } = entry
  watchers.push(watcher)
  return {
    requestOf: (qpn, isReceive, deviceWrId) => feed.requestOf(qpn, isReceive, deviceWrId),
    reportCq: cq => feed.reportCq(cq),
    reportContext: context => feed.reportContext(context),
    reportUnpolled: () => feed.reportUnpolled(),
    settleSends: qp => feed.settleSends(qp),
    settleContext: (context, isDead) => feed.settleContext(context, isDead),
    digest: (request, isWhole) => feed.digest(request, isWhole),
    window: request => feed.window(request),
    end() {
      const at = watchers.indexOf(watcher)
      if (at >= 0) watchers.splice(at, 1)
      if (at < 0 || watchers.length > 0) return
      shared.delete(device)
      feed.end()
    },
  }
}
