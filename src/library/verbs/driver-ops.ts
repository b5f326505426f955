/*
 * Descriptors of a driver's own interfaces (R28, R30; class `driver_ops`): ioctl, write, mmap, and records to read. The
 * driver defines the meaning of ioctl numbers, bytes and records.
 */
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { DriverOps } from '../../spec/classes/driver_ops.ts'
import { DRIVER_RECORD_BYTES } from '../../spec/session.ts'
import { checkOptions, type KnownOptions } from './arguments/options.ts'
import type { MappedBytes } from './carrier.ts'
import { checkByteCount, checkBytes, checkText, checkU32, closedError, invalidArgument, RdmaError } from './error.ts'
import { type Arrivals, createMailbox } from './mailbox.ts'
import { descriptorCloser } from './objects/object.ts'
import { showAs, shownClosed } from './objects/show.ts'
import { CLOSED, checkDevicePresent, type DeviceContext } from './plan.ts'

/** Options of `DriverDescriptor.map`. */
export interface MapOptions {
  /** Offset in the driver's memory: a multiple of the page size; default 0. */
  readonly offset?: number | undefined
  /** Whether the mapping is writable; default true. */
  readonly writable?: boolean | undefined
}
const mapOptionNames: KnownOptions<MapOptions> = { offset: true, writable: 'flag' }

/** A descriptor of a driver's own interface (class `driver_ops`). */
export interface DriverDescriptor extends Arrivals<Uint8Array>, Disposable, AsyncIterable<Uint8Array> {
  /** Handle, for calls that take descriptors; on a daemon's device a file descriptor of this process. */
  readonly handle: number
  /** Name of the interface; for the provider channel, the driver's name. */
  readonly name: string
  /**
   * ioctl(2) with a request of the driver; returns its result. A Uint8Array is passed by address, and the driver may
   * change its bytes. Throws RdmaError.
   */
  ioctl(request: number, argument?: number | bigint | Uint8Array): number
  /** write(2): returns the number of bytes that the driver has taken. Throws RdmaError. */
  write(bytes: Uint8Array): number
  /** mmap(2): maps `length` bytes of the driver's memory until the descriptor is closed. Throws RdmaError. */
  map(length: number, options?: MapOptions): Uint8Array
  /** Closes the descriptor and unmaps its memory. */
  close(): void
}

/** Names of the driver's interfaces, in the order of the driver's list. */
export const interfaceNames = ({ carrier }: DeviceContext): string[] => {
  const { names } = carrier.call(DeviceClass, 'queryDriverOps', 0, {}).out
  return new TextDecoder().decode(names).split('\0').filter(Boolean)
}

/** Opens the first interface of `names` that the driver has; returns the handle. Throws RdmaError. */
const openFirst = (context: DeviceContext, names: readonly string[]): number => {
  const { carrier } = context
  if (names.length === 0) return carrier.call(DriverOps, 'create', 0, {}).object
  const [name, ...others] = names
  try {
    return carrier.call(DriverOps, 'create', 0, { name: new TextEncoder().encode(name) }).object
  } catch (error) {
    if (others.length === 0 || !(error instanceof RdmaError) || error.code !== 'ENOENT') throw error
    return openFirst(context, others)
  }
}

/** Opens the first of these interfaces that the driver has; without names its provider channel. Throws RdmaError. */
export const openDriverOps = (context: DeviceContext, names: readonly string[]): DriverDescriptor => {
  const { carrier } = context
  const { descriptors } = carrier
  for (const name of names) checkText('device.driverOps', 'the name of an interface', name)
  const handle = openFirst(context, names)
  const mappings: MappedBytes[] = []
  const mailbox = createMailbox<Uint8Array>(context, 'driver_ops')
  // A copy: the record is only valid during the call.
  const keepRecord = (record: DataView): void =>
    mailbox.put(new Uint8Array(record.buffer, record.byteOffset, record.byteLength).slice())
  descriptors.read(handle, DRIVER_RECORD_BYTES, keepRecord, mailbox.end)
  const close = descriptorCloser(carrier, DriverOps, handle, () => {
    self.handle = CLOSED
    for (const mapping of mappings) mapping.release()
    mailbox.end()
  })
  /** The handle. Throws if the descriptor or the device is closed, because another descriptor may have the number. */
  const openHandle = (method: string): number => {
    if (self.handle === CLOSED) throw closedError(`driver_ops.${method}`)
    checkDevicePresent(`driver_ops.${method}`, context)
    return handle
  }
  const self: DriverDescriptor & { handle: number } = {
    handle,
    name: new TextDecoder().decode(carrier.call(DriverOps, 'query', handle, {}).out.name),
    ioctl(request, argument = 0n) {
      checkU32('driver_ops.ioctl', 'request', request)
      if (typeof argument === 'bigint') return descriptors.ioctl(openHandle('ioctl'), request, argument)
      if (typeof argument !== 'number') checkBytes('driver_ops.ioctl', 'argument', argument)
      else if (!Number.isSafeInteger(argument))
        throw invalidArgument('driver_ops.ioctl', `argument ${argument} is not a safe integer: pass a bigint`)
      return descriptors.ioctl(openHandle('ioctl'), request, typeof argument === 'number' ? BigInt(argument) : argument)
    },
    write(bytes) {
      checkBytes('driver_ops.write', 'bytes', bytes)
      return descriptors.write(openHandle('write'), bytes)
    },
    map(length, options = {}) {
      checkOptions('driver_ops.map', 'options', options, mapOptionNames)
      const { offset = 0, writable = true } = options
      checkByteCount('driver_ops.map', 'length', length)
      checkByteCount('driver_ops.map', 'offset', offset)
      const mapping = descriptors.map(openHandle('map'), offset, length, writable)
      mappings.push(mapping)
      return mapping.bytes
    },
    poll: mailbox.poll,
    wait: mailbox.wait,
    arrivals: mailbox.arrivals,
    [Symbol.asyncIterator]: mailbox.arrivals,
    close,
    [Symbol.dispose]: close,
  }
  showAs(self, 'DriverDescriptor', () => {
    const shown = { handle, name: self.name }
    return self.handle === CLOSED ? shownClosed(shown) : shown
  })
  return self
}
