/*
 * Feeds the checker (src/check/) from a core: each call of a device, by a hook, and each failure. Contexts without a
 * program, those of clients like the MAD layer, are left out.
 */
import type { Checker } from '../../check/checker.ts'
import type { DeviceWithGid } from '../../check/connection.ts'
import { registerClient } from '../../core/devices/clients.ts'
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
  program(context: Context): Program | undefined
  /** The stack of the call that runs now. */
  callStack(): Stack
  /** Where the request was posted: a PostQueue, the number of the queue, and its wr_id. */
  postStack(context: Context, queue: number, number: number, wrId: bigint): Stack
}

/** The first device that has a GID like this. */
const deviceWhere = (core: Core, matches: (gid: Uint8Array) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values())
    for (const { gids } of ports)
      if (gids.entries.some(entry => entry !== undefined && matches(entry.gid))) return index
  return undefined
}

/** The device that has a GID. */
export const deviceWithGid =
  (core: Core): DeviceWithGid =>
  gid =>
    deviceWhere(core, one => one.every((byte, i) => byte === gid[i]))

const NONE: Stack = []

/** Numbers contexts. */
const createNumbers = (): ((context: Context) => number) => {
  const known = new WeakMap<Context, number>()
  let next = 0
  return context => {
    const number = known.get(context) ?? next++
    known.set(context, number)
    return number
  }
}

const hookOf = (
  device: Device,
  checker: Checker,
  sources: CheckSources,
  numberOf: (context: Context) => number,
): Hook => {
  const stacks = new WeakMap<CallContext, Stack>()
  return {
    // A handler that waits ends when another call runs.
    pre(call) {
      if (call.why === 'call') stacks.set(call, sources.callStack())
    },
    post(call, object, args, out, error) {
      const { context, entry, why } = call
      const program = sources.program(context)
      if (program === undefined) return
      checker.called({
        time: sources.now(),
        device: device.name,
        deviceNumber: device.index,
        context: numberOf(context),
        program,
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
        stack: why === 'call' ? (stacks.get(call) ?? sources.callStack()) : NONE,
      })
    },
  }
}

/** Feeds `checker` until the function returned is called. */
export const feedChecker = (core: Core, checker: Checker, sources: CheckSources): (() => void) => {
  const hooks = new Map<Device, () => void>()
  const numberOf = createNumbers()
  const unregister = registerClient(core, {
    name: 'check',
    add(device) {
      hooks.set(device, addHook(device, hookOf(device, checker, sources, numberOf)))
      return true
    },
    remove(device) {
      // Its hook stays: the objects are destroyed after this.
      hooks.delete(device)
    },
  })
  const forget = addFailureHandler(core, (failure, device, context) => {
    const program = context && sources.program(context)
    if (context === undefined || program === undefined) return
    const { peer, wrId = 0n } = failure
    checker.failed({
      time: sources.now(),
      deviceNumber: device.index,
      context: numberOf(context),
      program,
      failure,
      peerDevice: peer && deviceWhere(core, gid => addressText(gid) === peer.address),
      postStack: (queue, number) => sources.postStack(context, queue, number, wrId),
    })
  })
  return () => {
    forget()
    for (const remove of hooks.values()) remove()
    unregister()
  }
}
