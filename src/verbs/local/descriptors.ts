/*
 * Descriptors of a device in this process (R28, R37): core objects by number, not file descriptors. Buffers that
 * drivers receive by address have one for the duration of the call.
 */

import { opsIoctl, opsMap, opsWrite } from '../../core/devices/driver-ops.ts'
import { attachSink, createEventQueue } from '../../core/events/events.ts'
import type { LocalSpace } from '../../core/memory/local-space.ts'
import type { Caller, Core } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { CallError } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { viewOf } from '../../uapi/scalar.ts'
import type { Descriptors } from '../carrier.ts'
import { rethrow } from '../error.ts'

const BATCH = 256

/** Access of calls to buffers of this process by address. */
export const localCopies = (memory: LocalSpace): Pick<Caller, 'copyIn' | 'copyOut'> => {
  const move = (way: 'read' | 'write', address: bigint, bytes: Uint8Array): void => {
    if (bytes.length === 0) return
    const place = { address: 0, bytes, view: viewOf(bytes) }
    const [hi, lo] = [Number(address >> 32n), Number(address % BigInt(TWO_32))]
    if (memory[way](hi, lo, place, 0, bytes.length, bytes.length, bytes.length) !== 0)
      throw new CallError('EFAULT', `no buffer has the ${bytes.length} bytes at 0x${address.toString(16)}`)
  }
  return {
    copyIn(address, length) {
      const bytes = new Uint8Array(length)
      move('read', address, bytes)
      return bytes
    },
    copyOut: (address, bytes) => move('write', address, bytes),
  }
}

export const localDescriptors = (core: Core, memory: LocalSpace, caller: Caller): Descriptors => {
  /** Runs `body` with an address for `bytes`. */
  const withAddress = <T>(bytes: Uint8Array, body: (address: bigint) => T): T => {
    const address = memory.add(bytes)
    try {
      return body(BigInt(address))
    } finally {
      memory.remove(address)
    }
  }
  return {
    read(fd, _maxBytes, take, ended) {
      let scheduled = false
      // Called by the device: records are read afterwards.
      const drain = (): void => {
        scheduled = false
        for (let events = sink.take(BATCH); events.length > 0; events = sink.take(BATCH))
          for (const { bytes } of events) take(viewOf(bytes))
        if (sink.ended) ended()
      }
      const sink = createEventQueue(() => {
        if (scheduled) return
        scheduled = true
        queueMicrotask(drain)
      })
      attachSink(findDescriptor(core, fd), sink)
    },
    watch(fd, ready) {
      let scheduled = false
      attachSink(
        findDescriptor(core, fd),
        createEventQueue(() => {
          if (scheduled) return
          scheduled = true
          queueMicrotask(() => {
            scheduled = false
            ready()
          })
        }),
      )
    },
    ioctl: (fd, request, argument) =>
      rethrow('driver_ops.ioctl', () => {
        const of = findDescriptor(core, fd)
        if (typeof argument === 'bigint') return opsIoctl(of, caller, request, argument)
        return withAddress(argument, address => opsIoctl(of, caller, request, address))
      }),
    write: (fd, bytes) =>
      rethrow('driver_ops.write', () => {
        const of = findDescriptor(core, fd)
        return withAddress(bytes, address => opsWrite(of, caller, address, bytes.length))
      }),
    map: (fd, offset, length, writable) =>
      rethrow('driver_ops.mmap', () => {
        const { at, bytes } = opsMap(findDescriptor(core, fd), caller, offset, length, writable)
        return { bytes: bytes.subarray(at, at + length), release() {} }
      }),
    close: fd => closeDescriptor(core, fd),
  }
}
