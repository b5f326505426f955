/*
 * The requests of a device for several watchers: the checker and the recorder share one feed (feed.ts).
 */
import type { Device } from '../../core/model.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import type { Arena } from '../../wire/arena.ts'
import { RequestFeed } from './feed.ts'

/** What a watcher may ask. */
export type RequestPoll = Pick<RequestFeed, 'reportCq' | 'reportContext' | 'digest' | 'window' | 'end'>

interface SharedFeed {
  readonly watchers: RequestWatcher[]
  readonly feed: RequestFeed
}

const shared = new WeakMap<Device, SharedFeed>()

const forwarder = (watchers: readonly RequestWatcher[]): RequestWatcher => ({
  posted(request) {
    for (const watcher of watchers) watcher.posted(request)
  },
  ended(request) {
    for (const watcher of watchers) watcher.ended(request)
  },
  completed(request, completion) {
    for (const watcher of watchers) watcher.completed(request, completion)
  },
  receiveLost(request) {
    for (const watcher of watchers) watcher.receiveLost(request)
  },
  receiverNotReady(qp) {
    for (const watcher of watchers) watcher.receiverNotReady(qp)
  },
  polled(cq, count) {
    for (const watcher of watchers) watcher.polled(cq, count)
  },
  queueReset(owner) {
    for (const watcher of watchers) watcher.queueReset(owner)
  },
})

/**
 * Reports the device's requests to `watcher` too, until `end` of the result is called. `scratch`: a buffer of
 * SCRATCH_BYTES; that of the first watcher is used.
 */
export const watchRequests = (device: Device, watcher: RequestWatcher, scratch: Arena): RequestPoll => {
  let entry = shared.get(device)
  if (entry === undefined) {
    const watchers: RequestWatcher[] = []
    entry = { watchers, feed: new RequestFeed(device, forwarder(watchers), scratch) }
    shared.set(device, entry)
  }
  const { watchers, feed } = entry
  watchers.push(watcher)
  return {
    reportCq: cq => feed.reportCq(cq),
    reportContext: context => feed.reportContext(context),
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
