/*
 * Core's own memory regions (IBA 10.6.3, R22): what a registration must satisfy, and its keys.
 *
 * Refused, in Linux' order (test/fixtures/abi/raw.out): address and iova with different page offsets, unknown access
 * bits, remote write or atomic without local write, a range that wraps around (EINVAL), pages that do not exist or do
 * not permit the access (EFAULT). Bits of the optional range are taken and mean nothing here. A length of 0 is taken
 * inside a page. The rkey is the lkey if there is any remote access, else 0. A region with ZERO_BASED is addressed from
 * 0 on, as ibv_reg_mr's manual has it; Linux' soft device takes the flag and passes it over. While windows are bound to
 * a region it cannot be deregistered (10.6.7.2.6).
 */
import { Mr } from '../../spec/classes/mr.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { driverClass } from '../driver.ts'
import { addRegion, type MemoryTable, REMOTE_RIGHTS } from '../memory.ts'
import { removeRegion } from '../windows.ts'

export interface MrState {
  /** Row of the device's MemoryTable. */
  readonly row: number
}

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, ON_DEMAND, ZERO_BASED, FLUSH_PERSISTENT } =
  AccessFlags.values
const WRITES = LOCAL_WRITE | REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND
const KNOWN = Object.values(AccessFlags.values).reduce((all, bit) => all | bit, 0)

const PAGE_OFFSET = BigInt(PAGE_BYTES - 1)
const TOP = 1n << 64n

const hex = (value: bigint | number): string => `0x${(typeof value === 'number' ? value >>> 0 : value).toString(16)}`
const refuse = (reason: string): never => {
  throw new CallError('EINVAL', `mr.create: ${reason}`)
}

/** The two keys of a row. */
export const keysOf = (table: MemoryTable, row: number): { lkey: number; rkey: number } => {
  const lkey = table.key[row]
  return { lkey, rkey: table.access[row] & REMOTE_RIGHTS ? lkey : 0 }
}

export const mrClass = driverClass<typeof Mr, MrState>(Mr, {
  create({ caller, device }, object, { pd, start, length, iova, access }) {
    if ((start & PAGE_OFFSET) !== (iova & PAGE_OFFSET))
      refuse(`iova ${hex(iova)} must have the same offset in its page as address ${hex(start)}`)
    if (access & ~KNOWN) refuse(`access has unknown bits ${hex(access & ~KNOWN)}, known are ${hex(KNOWN)}`)
    if (access & (REMOTE_WRITE | REMOTE_ATOMIC) && !(access & LOCAL_WRITE))
      refuse(`access ${hex(access)} lets a peer write what may not be written locally: add LOCAL_WRITE`)
    if (access & ON_DEMAND && device.extended.odpGeneralCaps === 0n)
      refuse(`access ${hex(access)}: device ${device.name} has no on-demand paging`)
    if (access & FLUSH_PERSISTENT)
      refuse(`access ${hex(access)}: memory of a process is not persistent, leave FLUSH_PERSISTENT out`)
    // No page at all, as Linux counts them; inside a page a length of 0 is one (test/fixtures/abi shows both).
    if (length === 0n && (iova & PAGE_OFFSET) === 0n) refuse(`length is 0 at iova ${hex(iova)}, the start of a page`)
    if (start + length >= TOP) refuse(`${hex(start)} and ${length} bytes reach beyond the last address`)
    if (iova + length >= TOP) refuse(`iova ${hex(iova)} and ${length} bytes reach beyond the last address`)
    const bytes = Number(length)
    const { memory } = caller
    if (
      !Number.isSafeInteger(bytes) ||
      !memory.check(Number(start >> 32n), Number(start & 0xffffffffn), bytes, (access & WRITES) !== 0)
    )
      throw new CallError(
        'EFAULT',
        `mr.create: the ${length} bytes from ${hex(start)} are not all there, or may not be ${access & WRITES ? 'written' : 'read'}`,
      )
    const base = access & ZERO_BASED ? 0n : iova
    const row = addRegion(device.memory, pd.id, start, base, bytes, access >>> 0, memory)
    object.state = { row }
    return keysOf(device.memory, row)
  },

  query({ device: { memory } }, { state: { row } }) {
    const iova = (BigInt(memory.iovaHi[row]) << 32n) | BigInt(memory.iovaLo[row])
    return { ...keysOf(memory, row), length: BigInt(memory.length[row]), iova }
  },

  destroy({ device, why }, { state: { row } }) {
    const windows = device.memory.bound[row]
    if (windows > 0 && why === 'call')
      throw new CallError('EINVAL', `mr.destroy: ${windows} memory windows are bound to it: unbind them first`)
    removeRegion(device.memory, row)
    return {}
  },
})
