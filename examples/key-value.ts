/*
 * A key-value store whose clients never interrupt the server. The server writes entries into a table, and clients find
 * entries with one-sided READs. An entry begins and ends with its version. If the two versions differ, the server has
 * written the entry during the READ, and the client repeats the READ.
 *
 *   node dist/examples/key-value.js [keys]
 */
import { createHash } from 'node:crypto'
import { createNetwork, type Device, type Endpoint, open, type RemoteMemory } from 'userdma'

/** An entry: version u32, digest of the key from byte 8, value from byte 40 (length u8, then UTF-8), version u32. */
const ENTRY_BYTES = 128
const KEY_OFFSET = 8
const VALUE_OFFSET = 40
const END_VERSION_OFFSET = ENTRY_BYTES - 4
const keys = Number(process.argv[2] ?? 1000)
/**
 * A power of two, at least twice the number of keys: most keys are found with one READ, and there are empty slots, which
 * end the lookup of a key that does not exist.
 */
const slots = 2 ** Math.ceil(Math.log2(keys * 2))

/** The SHA-256 digest of a key, which the table has instead of the key, and the first slot of the lookup. */
const locate = (key: string) => {
  const digest = createHash('sha256').update(key).digest()
  return { digest, firstSlot: digest.readUInt32LE(0) % slots }
}

/** Plain data for a client, which a program sends over any channel, for example TCP. */
interface Invitation {
  readonly endpoint: Endpoint
  readonly table: RemoteMemory
}

/** Owns the table, and writes entries with plain stores. */
const createServer = (device: Device) => {
  const pd = device.pd()
  const table = Buffer.alloc(slots * ENTRY_BYTES)
  const mr = pd.register(table, { remoteRead: true })
  const cq = device.cq()
  return {
    invite(client: Endpoint): Invitation {
      const qp = pd.polledRcQp({ sendCq: cq, maxRecvWr: 1 })
      qp.connect(client)
      return { endpoint: qp.endpoint, table: mr.remote() }
    },
    set(key: string, value: string): void {
      const { digest, firstSlot } = locate(key)
      let at = firstSlot * ENTRY_BYTES
      while (table.readUInt32LE(at) !== 0 && !table.subarray(at + KEY_OFFSET, at + VALUE_OFFSET).equals(digest))
        at = (at + ENTRY_BYTES) % table.length
      const version = table.readUInt32LE(at) + 1
      // Writes go from the end to the beginning, READs in ascending order: a torn entry has two versions.
      table.writeUInt32LE(version, at + END_VERSION_OFFSET)
      table[at + VALUE_OFFSET] = table.write(value, at + VALUE_OFFSET + 1, END_VERSION_OFFSET - VALUE_OFFSET - 1)
      digest.copy(table, at + KEY_OFFSET)
      table.writeUInt32LE(version, at)
    },
  }
}

/** A client, which reads the server's table over its own connection. */
const createClient = (device: Device) => {
  const pd = device.pd()
  const slot = Buffer.alloc(ENTRY_BYTES)
  const mr = pd.register(slot)
  const cq = device.cq()
  const qp = pd.polledRcQp({ sendCq: cq, maxRecvWr: 1 })
  const local = mr.slice()
  let table: RemoteMemory
  return {
    endpoint: qp.endpoint,
    accept(invitation: Invitation): void {
      table = invitation.table
      qp.connect(invitation.endpoint)
    },
    async get(key: string): Promise<string | undefined> {
      const { digest, firstSlot } = locate(key)
      for (let index = firstSlot; ; ) {
        qp.read(local, table.slice(index * ENTRY_BYTES, ENTRY_BYTES))
        while (!cq.poll()) await cq.wait()
        if (!cq.completion.ok) throw new Error(`the table cannot be read: ${cq.completion.statusName}`)
        const version = slot.readUInt32LE(0)
        if (version === 0) return undefined
        if (slot.readUInt32LE(END_VERSION_OFFSET) !== version) continue
        if (slot.subarray(KEY_OFFSET, VALUE_OFFSET).equals(digest))
          return slot.toString('utf8', VALUE_OFFSET + 1, VALUE_OFFSET + 1 + slot[VALUE_OFFSET])
        index = (index + 1) % slots
      }
    },
  }
}

const network = createNetwork()
await using serverDevice = await open({ network })
await using clientDevice = await open({ network })
const server = createServer(serverDevice)
const client = createClient(clientDevice)
client.accept(server.invite(client.endpoint))

for (let i = 0; i < keys; i++) server.set(`key ${i}`, `value ${i}`)
server.set('key 0', 'another value')
const start = performance.now()
let found = 0
for (let i = 0; i < keys; i++) if ((await client.get(`key ${i}`)) !== undefined) found++
const microseconds = ((performance.now() - start) * 1000) / keys
const { hw_counters } = clientDevice.counters()
console.log(`${found} of ${keys} keys found, ${microseconds.toFixed(1)} µs each, ${hw_counters.sent_pkts} packets sent`)
console.log(`key 0 is "${await client.get('key 0')}", key x is ${await client.get('key x')}`)
