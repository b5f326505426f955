/*
 * A driver's own descriptors in the library (R28, R30): opened by the versioned name of an interface, the newest that
 * both driver and program know; without a name the driver's provider channel. Program and driver define the meaning of
 * requests, bytes and records.
 */
import { Device as DeviceClass } from '../spec/classes/device/device.ts'
import { DriverOps } from '../spec/classes/driver_ops.ts'
import { checkOptions, type KnownOptions } from './checks/options.ts'
import { checkBytes, checkText, checkU32, formatValue, invalidArgument, RdmaError } from './error.ts'
import { type Arrivals, createMailbox } from './mailbox.ts'
import { descriptorCloser } from './objects/object.ts'
import { showAs } from './objects/show.ts'
import { CLOSED, type DeviceContext, isClosed } from './plan.ts'

export interface MapOptions {
  /** Offset in the driver's memory: a multiple of the page size; default 0. */
  readonly offset?: number
  /** Whether the mapping is writable; default true. */
  readonly writable?: boolean
}
const mapOptionNames: KnownOptions<MapOptions> = { offset: true, writable: true }

/** A descriptor of a driver's own interface (class `driver_ops`). */
export interface DriverDescriptor extends Arrivals<Uint8Array>, Disposable, AsyncIterable<Uint8Array> {
  /** Its number, for calls that take descriptors; with a daemon a descriptor of this process. */
  readonly handle: number
  /** Name of its interface. */
  readonly name: string
  /** ioctl: the driver's own calls. Bytes as an argument are passed by address, and the driver may change them. */
  ioctl(request: number, argument?: number | bigint | Uint8Array): number
  /** write: returns the number of bytes taken. */
  write(bytes: Uint8Array): number
  /** Maps the driver's memory until the descriptor is closed. `offset`: a multiple of the page size. */
  map(length: number, options?: MapOptions): Uint8Array
  /** Closes it and unmaps its memory. */
  close(): void
}

/** Maximum bytes of a record (core's RECORD_BYTES). */
const RECORD = 256

/** Names of a driver's interfaces, as it lists them. */
export const interfaceNames = ({ carrier }: DeviceContext): string[] => {
  const { names } = carrier.call(DeviceClass, 'queryDriverOps', 0, {}).out
  return new TextDecoder().decode(names).split('\0').filter(Boolean)
}

/** Opens the first interface of `names` that exists; ENOENT, as for the last one, if none does. */
const create = (kit: DeviceContext, names: readonly string[]): number => {
  const { carrier } = kit
  if (names.length === 0) return carrier.call(DriverOps, 'create', 0, {}).object
  const [name, ...older] = names
  try {
    return carrier.call(DriverOps, 'create', 0, { name: new TextEncoder().encode(name) }).object
  } catch (error) {
    if (older.length === 0 || !(error instanceof RdmaError) || error.code !== 'ENOENT') throw error
    return create(kit, older)
  }
}

export const openDriverOps = (kit: DeviceContext, names: readonly string[]): DriverDescriptor => {
  const { carrier } = kit
  const { descriptors } = carrier
  for (const name of names) checkText('device.driverOps', 'the name of an interface', name)
  const handle = create(kit, names)
  const mapped: { release(): void }[] = []
  const mail = createMailbox<Uint8Array>(kit, 'driver_ops')
  // A copy: the record is only valid during the call.
  const take = (record: DataView): void =>
    mail.put(new Uint8Array(record.buffer, record.byteOffset, record.byteLength).slice())
  descriptors.read(handle, RECORD, take, mail.end)
  const close = descriptorCloser(carrier, DriverOps, handle, () => {
    self.handle = CLOSED
    for (const one of mapped) one.release()
    mail.end()
  })
  /** The handle. Throws after `close`, because another descriptor may have the number then. */
  const opened = (method: string): number => {
    if (self.handle === CLOSED) throw isClosed(`driver_ops.${method}`)
    return handle
  }
  const self: DriverDescriptor & { handle: number } = {
    handle,
    name: new TextDecoder().decode(carrier.call(DriverOps, 'query', handle, {}).out.name),
    ioctl(request, argument = 0n) {
      checkU32('driver_ops.ioctl', 'request', request)
      if (typeof argument === 'bigint') return descriptors.ioctl(opened('ioctl'), request, argument)
      if (typeof argument !== 'number') checkBytes('driver_ops.ioctl', 'argument', argument)
      else if (!Number.isSafeInteger(argument))
        throw invalidArgument('driver_ops.ioctl', `argument ${argument} is not a safe integer: pass a bigint`)
      return descriptors.ioctl(opened('ioctl'), request, typeof argument === 'number' ? BigInt(argument) : argument)
    },
    write(bytes) {
      checkBytes('driver_ops.write', 'bytes', bytes)
      return descriptors.write(opened('write'), bytes)
    },
    map(length, options = {}) {
      checkOptions('driver_ops.map', 'options', options, mapOptionNames)
      const { offset = 0, writable = true } = options
      for (const [name, value] of Object.entries({ length, offset }))
        if (!Number.isSafeInteger(value) || value < 0)
          throw invalidArgument('driver_ops.map', `${name} ${formatValue(value)} is not a number of bytes`)
      const piece = descriptors.map(opened('mmap'), offset, length, writable)
      mapped.push(piece)
      return piece.bytes
    },
    poll: mail.poll,
    wait: mail.wait,
    arrivals: mail.arrivals,
    [Symbol.asyncIterator]: mail.arrivals,
    close,
    [Symbol.dispose]: close,
  }
  showAs(self, 'DriverDescriptor', () => ({ handle: self.handle, name: self.name }))
  return self
}
