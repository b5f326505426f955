/*
 * The requests of a device for several watchers: the checker and the recorder. A driver reports to one watcher per
 * device (`Driver.watch` in core/model.ts).
 */

import type { RequestPoll } from '../core/driver-contract.ts'
import type { Device } from '../core/model.ts'
import type { RequestWatcher } from '../spec/check/requests.ts'
import type { Arena } from '../wire/arena.ts'

interface SharedFeed {
  readonly watchers: RequestWatcher[]
  readonly poll: RequestPoll
}

const feeds = new WeakMap<Device, SharedFeed>()

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
 * Reports the device's requests to `watcher` too, until `end` of the result is called. Undefined: its driver reports no
 * requests. `scratch`: a buffer of SCRATCH_BYTES; that of the first watcher is used.
 */
export const watchRequests = (device: Device, watcher: RequestWatcher, scratch: Arena): RequestPoll | undefined => {
  let feed = feeds.get(device)
  if (feed === undefined) {
    const watchers: RequestWatcher[] = []
    const poll = device.driver.watch?.(device, forwarder(watchers), scratch)
    if (poll === undefined) return undefined
    feed = { watchers, poll }
    feeds.set(device, feed)
  }
  const { watchers, poll } = feed
  watchers.push(watcher)
  return {
    ...poll,
    end() {
      const at = watchers.indexOf(watcher)
      if (at >= 0) watchers.splice(at, 1)
      if (at < 0 || watchers.length > 0) return
      feeds.delete(device)
      poll.end()
    },
  }
}
