/*
 * Feeds the checker (src/check/) from a core: each call of a device, by a hook, and each failure. Contexts of
 * clients like the MAD layer are left out.
 */
import type { Checker } from '../../check/checker.ts'
import type { DeviceWithGid } from '../../check/connection.ts'
import { registerClient } from '../../core/devices/clients.ts'
import { findGid, type GidTable } from '../../core/devices/gids.ts'
import { addHook } from '../../core/devices/registry.ts'
import { addFailureHandler } from '../../core/failures.ts'
import type { CallContext, Context, Core, Device, Hook } from '../../core/model.ts'
import { CallError } from '../../spec/errno.ts'
import type { Program, Stack } from '../../spec/findings.ts'
import { addressText } from '../../wire/address.ts'

/** What only the carrier of calls knows. */
export interface CheckSources {
  /** Microseconds. */
  now(): number
  /** Contexts whose calls and failures are checked. */
  watches(context: Context): boolean
  /** Undefined: the one that asks. */
  program(context: Context): Program | undefined
  /** The stack of the call that runs now, which may be asked for later. */
  callStack(): () => Stack
  /** Where the request was posted: a PostQueue, the number of the queue, and its wr_id. */
  postStack(context: Context, queue: number, number: number, wrId: bigint): Stack
}

/** The first device with such a GID table. */
const deviceWhere = (core: Core, matches: (gids: GidTable) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values()) if (ports.some(({ gids }) => matches(gids))) return index
  return undefined
}

/** The device that has a GID. */
export const deviceWithGid =
  (core: Core): DeviceWithGid =>
  gid =>
    deviceWhere(core, gids => findGid(gids, gid) >= 0)

const NONE: Stack = []
const none = (): Stack => NONE

const hookOf = (device: Device, checker: Checker, sources: CheckSources): Hook => {
  const stacks = new WeakMap<CallContext, () => Stack>()
  return {
    // A handler that waits ends when another call runs.
    pre(call) {
      if (call.why === 'call' && sources.watches(call.context)) stacks.set(call, sources.callStack())
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

/** Feeds `checker` as long as the core exists. */
export const feedChecker = (core: Core, checker: Checker, sources: CheckSources): void => {
  registerClient(core, {
    name: 'check',
    add(device) {
      addHook(device, hookOf(device, checker, sources))
      return true
    },
    // The hook stays: the objects are destroyed after this.
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
        peer && deviceWhere(core, ({ entries }) => entries.some(one => one && addressText(one.gid) === peer.address)),
      postStack: (queue, number) => sources.postStack(context, queue, number, wrId),
    })
  })
}
