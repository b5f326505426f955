/*
 * Device memory (class `dm`): pages of the context's memory that libmlx5 maps by their numbers, which it gets from the
 * creation. A context has as many pages as one byte of the number distinguishes. Regions of it are core's
 * (core/base/mr.ts).
 */
import { driverClass } from '../../core/devices/driver.ts'
import type { DeviceMemory } from '../../core/memory/device-memory.ts'
import { createLocalSpace } from '../../core/memory/local-space.ts'
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Context } from '../../core/model.ts'
import { Dm } from '../../spec/classes/dm.ts'
import { DmType, Mlx5Attributes, Mlx5Page } from '../../spec/drivers/mlx5.ts'
import { callError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import { the } from '../../spec/reason.ts'
import { Limits } from './attributes.ts'
import { contextOf, type DeviceMemoryStore } from './context.ts'

/** Pages of a context's device memory. */
const PAGES = 256
const MAX_ALIGNMENT = Math.log2(PAGE_BYTES)

const storeOf = (context: Context): DeviceMemoryStore => {
  const state = contextOf(context)
  if (state.deviceMemory === undefined) {
    const local = createLocalSpace()
    const { locate: _, ...space } = local
    state.deviceMemory = { used: new Uint8Array(PAGES), local, space }
  }
  return state.deviceMemory
}

/** The first of `count` free pages. Throws CallError ENOMEM. */
const findPages = (used: Uint8Array, count: number): number => {
  for (let first = 0, free = 0; first + free < PAGES; ) {
    if (used[first + free] !== 0) {
      first += free + 1
      free = 0
    } else if (++free === count) return first
  }
  throw callError.ENOMEM`${the.method('dm.create')}: the context has no ${count} pages of device memory in a row left, of ${PAGES}`
}

interface Mlx5Dm extends DeviceMemory {
  readonly chunk: MappedChunk
  readonly firstPage: number
  readonly pages: number
  readonly alignment: number
}

const requireLength = (length: bigint, alignment: number, type: bigint): number => {
  if (type !== DmType.MEMIC)
    throw callError.EOPNOTSUPP`${the.method('dm.create')}: type ${type}: the device has no memory for steering of packets`
  if (length < 1n || length > BigInt(Limits.maxDm))
    throw callError.EINVAL`${the.method('dm.create')}: ${the.attribute('length')}: ${length} is not in 1 to ${Limits.maxDm}`
  if (alignment > MAX_ALIGNMENT)
    throw callError.EINVAL`${the.method('dm.create')}: ${the.attribute('alignment')}: ${alignment} is above ${MAX_ALIGNMENT}`
  return Number(length)
}

export const dmClass = driverClass<typeof Dm, Mlx5Dm, typeof Mlx5Attributes.dm>(
  Dm,
  {
    create({ context }, object, { length, alignment, type = DmType.MEMIC }) {
      const bytes = requireLength(length, alignment, type)
      const { mapped } = context
      if (mapped?.allocateAt === undefined)
        throw callError.EOPNOTSUPP`${the.method('dm.create')}: this program cannot map device memory: start it with userdma run`
      const { used, local, space } = storeOf(context)
      const pages = Math.ceil(bytes / PAGE_BYTES)
      const firstPage = findPages(used, pages)
      const chunk = mapped.allocateAt(Mlx5Page.DEVICE_MEMORY + firstPage, bytes)
      used.fill(1, firstPage, firstPage + pages)
      const start = local.add(chunk.bytes.subarray(chunk.at, chunk.at + bytes))
      object.state = { space, start, length: bytes, chunk, firstPage, pages, alignment }
      return { startOffset: 0n, pageIndex: firstPage }
    },
    query: (_call, { state: { length, alignment, firstPage } }) => ({
      length: BigInt(length),
      alignment,
      startOffset: 0n,
      pageIndex: firstPage,
    }),
    destroy({ context }, { state: { start, chunk, firstPage, pages } }) {
      const { used, local } = storeOf(context)
      local.remove(start)
      used.fill(0, firstPage, firstPage + pages)
      context.mapped?.free(chunk)
      return {}
    },
  },
  Mlx5Attributes.dm,
)
