/*
 * A process that creates very many objects of one class, once, and measures their cost: for the rows of objects.ts and
 * for test/bench/objects.test.ts (R15). Each process executes one order, because measured memory grows and never
 * shrinks.
 */
import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { createDevice } from '../src/verbs/device.ts'
import { localCarrier } from '../src/verbs/local/carrier.ts'
import { createNetwork } from '../src/verbs/local/network.ts'
import { parseAddress } from '../src/wire/address.ts'
import { settled } from './memory.ts'
import { destroyMade, type Made, makers, type ObjectKind, type Setup } from './objects-made.ts'

export interface ObjectsOrder {
  /** 'tcp': endpoints of connections in this process. */
  readonly what: ObjectKind | 'tcp'
  readonly count: number
}

/** Bytes per object, of `count` objects. */
export interface ObjectsCost {
  /** In heap and buffers. */
  readonly bytes: number
  /** Of the whole process. */
  readonly resident: number
}

/** Warm-up, on a device of its own that is closed, so that code is compiled and one-time allocations are done. */
const WARM_UP = 3000

const costOf = async (count: number, make: () => unknown): Promise<ObjectsCost> => {
  const before = await settled()
  await make()
  const after = await settled()
  return { bytes: (after.used - before.used) / count, resident: (after.resident - before.resident) / count }
}

const ADDRESS = '127.0.0.1'

const setup = (): Setup => {
  const carrier = localCarrier(createNetwork(), 'rxe0', ADDRESS)
  const path = { gid: parseAddress(ADDRESS) as Uint8Array, gidIndex: 1, pathMtu: carrier.rxe.state.port.pathMtu }
  return { carrier, path, device: createDevice(carrier, 'rxe0', ADDRESS, path) }
}

const objects = async (what: ObjectKind, count: number): Promise<ObjectsCost> => {
  const maker = makers[what]
  const before = setup()
  const warm = Array.from({ length: WARM_UP }, maker.prepare(before))
  for (const one of warm.splice(0).reverse()) destroyMade(before, maker, one)
  await before.device.close()
  const make = maker.prepare(setup())
  // The array of the objects is not counted.
  const made = new Array<Made>(count).fill(0)
  const cost = await costOf(count, () => {
    for (let i = 0; i < count; i++) made[i] = make()
  })
  if (made.includes(-1)) throw new Error('handles are not negative')
  return cost
}

const connections = async (count: number): Promise<ObjectsCost> => {
  const sockets: Socket[] = []
  const server = createServer(socket => sockets.push(socket)).listen(0, ADDRESS)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a server of TCP has a port')
  const connect = async (pairs: number): Promise<Socket[]> => {
    const wanted = sockets.length + 2 * pairs
    for (let i = 0; i < pairs; i++) {
      const client = createConnection(address.port, ADDRESS)
      await once(client, 'connect')
      sockets.push(client)
    }
    while (sockets.length < wanted) await new Promise(resolve => setImmediate(resolve))
    return sockets
  }
  await connect(20)
  return costOf(count, () => connect(count / 2))
}

process.on('message', async ({ what, count }: ObjectsOrder) => {
  try {
    process.send?.(await (what === 'tcp' ? connections(count) : objects(what, count)))
  } catch (error) {
    process.send?.({ failed: (error as Error).message })
  }
  process.disconnect()
  process.exit()
})
