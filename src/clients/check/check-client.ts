/*
 * Feeds the checker (src/check/) from a core: each call of a device, by a hook, each failure and each request. Contexts
 * of clients like the MAD layer are left out.
 */
import { Checker } from '../../check/checker.ts'
import type { DeviceWithGid } from '../../check/connection.ts'
import type { RaceSources } from '../../check/races/sources.ts'
import type { BeginningCall, TopicSources } from '../../check/topic.ts'
import { registerClient } from '../../core/devices/clients.ts'
import { findGid, type GidTable } from '../../core/devices/gids.ts'
import { addHook } from '../../core/devices/registry.ts'
import { addFailureHandler } from '../../core/failures.ts'
import { onRegionUnmapped } from '../../core/memory/lost-regions.ts'
import type { CallContext, Context, Core, Device, Hook, RequestPoll } from '../../core/model.ts'
import type { Finding, Program, Stack } from '../../spec/check/findings.ts'
import { CallError } from '../../spec/errno.ts'
import { addressText } from '../../wire/address.ts'
import type { Arena } from '../../wire/arena.ts'
import { keyMemory } from './key-memory.ts'

/** Facts that only the server of the calls knows. */
export interface CheckSources extends Pick<TopicSources, 'like' | 'buffers' | 'lockLimit' | 'isCopiedByFork'> {
  /** SCRATCH_BYTES, into which the memory of programs can be read. */
  readonly scratch: Arena
  /** Microseconds. */
  now(): number
  /** Contexts whose calls and failures are checked. */
  watches(context: Context): boolean
  /** The program of a context; undefined for the process that runs the checker. */
  program(context: Context): Program | undefined
  /** The stack of the call that runs now, which may be asked for later. */
  callStack(): () => Stack
  /** The stack of the post of a request, by its queue, the queue's number and the wr_id. */
  postStack(context: Context, queue: number, number: number, wrId: bigint): Stack
  /** Logs of what programs do in order; absent: races are not looked for. */
  readonly events?: Omit<RaceSources, 'memoryOf'>
}

/** Index of the first device with a port whose GID table matches. */
const deviceWhere = (core: Core, matches: (gids: GidTable) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values()) for (const { gids } of ports) if (matches(gids)) return index
  return undefined
}

/** Finds the index of the device that has a GID. */
const deviceWithGid =
  (core: Core): DeviceWithGid =>
  gid =>
    deviceWhere(core, gids => findGid(gids, gid) >= 0)

const NONE: Stack = []
const none = (): Stack => NONE

const hookOf = (device: Device, checker: Checker, sources: CheckSources, look: RequestPoll | undefined): Hook => {
  const stacks = new WeakMap<CallContext, () => Stack>()
  return {
    pre(call, object, args) {
      const { context, entry, why } = call
      if (!sources.watches(context)) return
      if (entry.class.name === 'cq' && entry.name !== 'create') look?.cq(object)
      if (why !== 'call') return
      const stack = sources.callStack()
      // Taken here: an asynchronous handler ends during another call.
      stacks.set(call, stack)
      if (entry.name === 'create') return
      if (entry.class.name === 'mr') look?.context(context)
      const begun: BeginningCall = {
        class: entry.class.name,
        method: entry.name,
        program: sources.program(context),
        args,
        get stack() {
          return stack()
        },
      }
      checker.calling(begun, object.id)
    },
    post(call, object, args, out, error) {
      const { context, entry, why } = call
      if (!sources.watches(context)) return
      const stack = why === 'call' ? (stacks.get(call) ?? sources.callStack()) : none
      checker.called({
        time: sources.now(),
        device: device.name,
        deviceNumber: device.index,
        context: context.id,
        program: sources.program(context),
        class: entry.class.name,
        method: entry.name,
        object,
        args,
        out: out ?? {},
        ...(error !== undefined && {
          refused:
            error instanceof CallError ? { errno: error.errno, reason: error.message } : { errno: 0, reason: '' },
        }),
        why,
        get stack() {
          return stack()
        },
      })
    },
  }
}

const contextOf = (core: Core, id: number): Context | undefined => {
  for (const { contexts } of core.devices.values())
    for (const context of contexts) if (context.id === id) return context
  return undefined
}

/** Facts for topics of the checker (check/topic.ts). */
const topicSources = (
  core: Core,
  { now, postStack, like, lockLimit, isCopiedByFork }: CheckSources,
  looks: ReadonlyMap<number, RequestPoll>,
): TopicSources => ({
  now,
  ...(like && { like }),
  ...(lockLimit && { lockLimit }),
  ...(isCopiedByFork && { isCopiedByFork }),
  deviceName(index) {
    for (const device of core.devices.values()) if (device.index === index) return device.name
    return ''
  },
  postStack(id, queue, number, wrId) {
    const context = contextOf(core, id)
    return context === undefined ? NONE : postStack(context, queue, number, wrId)
  },
  look(device, id) {
    const context = contextOf(core, id)
    if (context !== undefined) looks.get(device)?.context(context)
  },
  digest: (device, request, isWhole) => looks.get(device)?.digest(request, isWhole),
})

/** A checker of the calls and requests of a core's contexts, as long as the core exists. */
export const createChecker = (core: Core, report: (finding: Finding) => void, sources: CheckSources): Checker => {
  const looks = new Map<number, RequestPoll>()
  const races = sources.events && { ...sources.events, memoryOf: keyMemory(core) }
  const common = topicSources(core, sources, looks)
  const checker = new Checker(deviceWithGid(core), report, { ...common, ...(races && { races }) })
  onRegionUnmapped(core, region => {
    if (region.context !== undefined && sources.watches(region.context)) checker.unmapped(region.id)
  })
  registerClient(core, {
    name: 'check',
    add(device) {
      const look = device.driver.watch?.(device, checker.requests, sources.scratch)
      if (look !== undefined) looks.set(device.index, look)
      addHook(device, hookOf(device, checker, sources, look))
      return true
    },
    // The hook stays: the client is removed before the device's objects are destroyed, and the checker needs those
    // calls.
    remove() {},
  })
  addFailureHandler(core, (failure, device, context) => {
    if (context === undefined || !sources.watches(context)) return
    const { peer, wrId = 0n } = failure
    checker.failed({
      time: sources.now(),
      deviceNumber: device.index,
      context: context.id,
      program: sources.program(context),
      failure,
      peerDevice:
        peer &&
        deviceWhere(core, ({ entries }) => entries.some(entry => entry && addressText(entry.gid) === peer.address)),
      postStack: (queue, number) => sources.postStack(context, queue, number, wrId),
    })
  })
  return checker
}
