/*
 * Descriptors of a device in this process (R28, R37): numbers of core's objects, not file descriptors. A buffer that is
 * passed to a driver has an address (`LocalSpace`) during the call.
 */
import { opsIoctl, opsMap, opsWrite } from '../../core/devices/driver-ops.ts'
import { attachSink, createEventQueue } from '../../core/events/events.ts'
import type { LocalSpace } from '../../core/memory/local-space.ts'
import type { Caller, Core } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { callError } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import { viewOf } from '../../uapi/scalar.ts'
import type { Descriptors } from '../verbs/carrier.ts'
import { rethrow } from '../verbs/error.ts'

/** Maximum records that are taken at once. */
const BATCH = 256

/** Copies from and to the buffers in `memory`, for calls that pass an address. Throws CallError EFAULT. */
export const localCopies = (memory: LocalSpace): Pick<Caller, 'copyIn' | 'copyOut'> => {
  const copy = (direction: 'read' | 'write', address: bigint, bytes: Uint8Array): void => {
    if (bytes.length === 0) return
    const arena = { address: 0, bytes, view: viewOf(bytes) }
    const [hi, lo] = [Number(address >> 32n), Number(address % BigInt(TWO_32))]
    // One chunk: chunk, stride and total are the length.
    if (memory[direction](hi, lo, arena, 0, bytes.length, bytes.length, bytes.length) !== 0)
      throw callError.EFAULT`no buffer has the ${bytes.length} bytes at 0x${address.toString(16)}`
  }
  return {
    copyIn(address, length) {
      const bytes = new Uint8Array(length)
      copy('read', address, bytes)
      return bytes
    },
    copyOut: (address, bytes) => copy('write', address, bytes),
  }
}

export const localDescriptors = (core: Core, memory: LocalSpace, caller: Caller): Descriptors => {
  const withAddress = <T>(bytes: Uint8Array, body: (address: bigint) => T): T => {
    const address = memory.add(bytes)
    try {
      return body(BigInt(address))
    } finally {
      memory.remove(address)
    }
  }
  return {
    read(fd, _maxBytes, onRecord, onEnd) {
      let isScheduled = false
      const drain = (): void => {
        isScheduled = false
        for (let events = sink.take(BATCH); events.length > 0; events = sink.take(BATCH))
          for (const { bytes } of events) onRecord(viewOf(bytes))
        if (sink.hasEnded) onEnd()
      }
      // The device calls the function in the middle of its work: records are read afterwards.
      const sink = createEventQueue(() => {
        if (isScheduled) return
        isScheduled = true
        queueMicrotask(drain)
      })
      attachSink(findDescriptor(core, fd), sink)
    },
    watch(fd, onReadable) {
      let isScheduled = false
      attachSink(
        findDescriptor(core, fd),
        createEventQueue(() => {
          if (isScheduled) return
          isScheduled = true
          queueMicrotask(() => {
            isScheduled = false
            onReadable()
          })
        }),
      )
    },
    ioctl: (fd, request, argument) =>
      rethrow('driver_ops.ioctl', () => {
        const descriptor = findDescriptor(core, fd)
        if (typeof argument === 'bigint') return opsIoctl(descriptor, caller, request, BigInt.asUintN(64, argument))
        return withAddress(argument, address => opsIoctl(descriptor, caller, request, address))
      }),
    write: (fd, bytes) =>
      rethrow('driver_ops.write', () => {
        const descriptor = findDescriptor(core, fd)
        return withAddress(bytes, address => opsWrite(descriptor, caller, address, bytes.length))
      }),
    map: (fd, offset, length, isWritable) =>
      rethrow('driver_ops.map', () => {
        const { at, bytes } = opsMap(findDescriptor(core, fd), caller, offset, length, isWritable)
        return { bytes: bytes.subarray(at, at + length), release() {} }
      }),
    close: fd => closeDescriptor(core, fd),
  }
}
