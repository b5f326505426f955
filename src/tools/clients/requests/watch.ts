/*
 * The requests of a device for several watchers: the checker and the recorder share one feed (feed.ts).
 */
import { noteFault } from '../../../core/attempt.ts'
import type { CallContext, CoreObject, Device } from '../../../core/model.ts'
import { allWatchers, type RequestWatcher } from '../../../spec/check/requests.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { ConsumerRank } from '../../events/stream.ts'
import { streamOf } from '../check/streams.ts'
import { RequestFeed } from './feed.ts'

/** What a watcher may ask. */
export type RequestPoll = Pick<
  RequestFeed,
  | 'requestOf'
  | 'reportCq'
  | 'reportContext'
  | 'reportQueue'
  | 'reportUnpolled'
  | 'settleSends'
  | 'settleContext'
  | 'digest'
  | 'watchMessages'
  | 'window'
  | 'end'
>

/** A call begins after which the polls of before would be told too late: reports them. */
export const reportPollsBefore = (
  poll: RequestPoll,
  { entry: { class: cls, name }, context, why }: Pick<CallContext, 'entry' | 'context' | 'why'>,
  object: CoreObject,
): void => {
  if (name === 'create') return
  if (cls.name === 'cq') poll.reportCq(object)
  if (why === 'call' && (cls.name === 'mr' || cls.name === 'ah')) poll.reportContext(context)
}

interface SharedFeed {
  readonly watchers: RequestWatcher[]
  readonly feed: RequestFeed
}

const shared = new WeakMap<Device, SharedFeed>()

/**
 * Reports the device's requests to `watcher` too, until `end` of the result is called. `scratch`: a buffer of
 * SCRATCH_BYTES; that of the first watcher is used. `rank`: ConsumerRank (tools/events/stream.ts).
 */
export const watchRequests = (
  device: Device,
  watcher: RequestWatcher,
  scratch: Arena,
  rank: number = ConsumerRank.CHECK,
): RequestPoll => {
  let entry = shared.get(device)
  if (entry === undefined) {
    const watchers: RequestWatcher[] = []
    entry = {
      watchers,
      feed: new RequestFeed(
        device,
        allWatchers(watchers, error => noteFault(device.core, error), streamOf(device.core)),
        scratch,
      ),
    }
    shared.set(device, entry)
  }
  const { watchers, feed } = entry
  if (rank === ConsumerRank.RECORD) watchers.unshift(watcher)
  else watchers.push(watcher)
  return {
    requestOf: (qpn, isReceive, deviceWrId) => feed.requestOf(qpn, isReceive, deviceWrId),
    reportCq: cq => feed.reportCq(cq),
    reportContext: context => feed.reportContext(context),
    reportQueue: queue => feed.reportQueue(queue),
    reportUnpolled: () => feed.reportUnpolled(),
    settleSends: qp => feed.settleSends(qp),
    settleContext: (context, isDead) => feed.settleContext(context, isDead),
    digest: (request, isWhole) => feed.digest(request, isWhole),
    watchMessages: watch => feed.watchMessages(watch),
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
