/*
 * A process that creates very many objects of one kind, and measures their memory, for objects.ts and
 * test/project/bench/objects.test.ts (R15). It executes one order: remains of an earlier order would change the result.
 */
import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { localCarrier } from '../../src/library/network/carrier.ts'
import type { LocalNetwork } from '../../src/library/network/contract.ts'
import { createNetwork } from '../../src/library/network/network.ts'
import { softPath } from '../../src/library/network/open-device.ts'
import { deviceOn } from '../../src/library/verbs/device.ts'
import { answerOnce } from '../harness/answer-once.ts'
import { memoryAfterCollection } from '../memory.ts'
import { type CreatedObject, destroyObject, makers, type ObjectKind, type Setup } from '../object-makers.ts'

export interface ObjectsOrder {
  /** 'tcp': endpoints of TCP connections in this process. */
  readonly kind: ObjectKind | 'tcp'
  readonly count: number
}

/** Bytes per object. */
export interface ObjectsCost {
  /** Bytes in the JavaScript heap and its buffers. */
  readonly bytes: number
  /** Bytes in the resident set of the process. */
  readonly resident: number
}

/** Objects, and pairs of TCP endpoints, for the warm-up. The warm-up's objects are on a separate device. */
const WARM_UP = 3000
const WARM_UP_CONNECTIONS = 20

const costOf = async (count: number, make: () => unknown): Promise<ObjectsCost> => {
  const before = await memoryAfterCollection()
  await make()
  const after = await memoryAfterCollection()
  return { bytes: (after.used - before.used) / count, resident: (after.resident - before.resident) / count }
}

const ADDRESS = '127.0.0.1'

const setup = (): Setup => {
  const network = createNetwork() as LocalNetwork
  const carrier = localCarrier(network, 'rxe0', ADDRESS)
  const path = softPath(network.softDevice('rxe0')!)
  return { carrier, path, device: deviceOn(carrier, 'rxe0', ADDRESS, () => path) }
}

const measureObjects = async (kind: ObjectKind, count: number): Promise<ObjectsCost> => {
  const maker = makers[kind]
  const warmUpSetup = setup()
  const warmUpObjects = Array.from({ length: WARM_UP }, maker.prepare(warmUpSetup))
  for (const object of warmUpObjects.splice(0).reverse()) destroyObject(warmUpSetup, maker, object)
  await warmUpSetup.device.close()
  const make = maker.prepare(setup())
  // The memory of this array must not be counted.
  const objects = new Array<CreatedObject>(count).fill(0)
  const cost = await costOf(count, () => {
    for (let i = 0; i < count; i++) objects[i] = make()
  })
  // This use keeps the array alive.
  if (objects.includes(-1)) throw new Error('handles are not negative')
  return cost
}

const measureConnections = async (count: number): Promise<ObjectsCost> => {
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
  await connect(WARM_UP_CONNECTIONS)
  return costOf(count, () => connect(count / 2))
}

answerOnce(({ kind, count }: ObjectsOrder) =>
  kind === 'tcp' ? measureConnections(count) : measureObjects(kind, count),
)
