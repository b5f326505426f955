/*
 * A key-value store whose clients never interrupt the server: it writes entries into a table, and clients find them
 * with one-sided READs. Each entry begins and ends with its version: if the two differ, the server was writing the
 * entry during the READ, and the client reads it again.
 *
 *   node dist/examples/key-value.js [keys]
 */
import { createHash } from 'node:crypto'
import { createNetwork, type Device, type Endpoint, open, type RemoteMemory } from 'userdma'

/** Bytes of an entry: version u32, key from byte 8, value from byte 40 (length u8, then UTF-8), version u32. */
const SLOT = 128
const KEY = 8
const VALUE = 40
const END_VERSION = SLOT - 4
const keys = Number(process.argv[2] ?? 1000)
/** Twice as many slots as keys, a power of two: a lookup rarely needs a second READ. */
const slots = 2 ** Math.ceil(Math.log2(keys * 2))

/** The 32 bytes that stand for a key in the table, and the first slot of its lookup. */
const locate = (key: string) => {
  const digest = createHash('sha256').update(key).digest()
  return { digest, first: digest.readUInt32LE(0) % slots }
}

/** What a client needs: plain data, which a program sends over any channel, for example TCP. */
interface Invitation {
  readonly endpoint: Endpoint
  readonly table: RemoteMemory
}

/** Owns the table, and writes entries with plain stores. */
const createServer = (device: Device) => {
  const pd = device.pd()
  const table = Buffer.alloc(slots * SLOT)
  const mr = pd.register(table, { remoteRead: true })
  const cq = device.cq()
  return {
    invite(client: Endpoint): Invitation {
      const qp = pd.rcQp({ sendCq: cq, maxRecvWr: 1 })
      qp.connect(client)
      return { endpoint: qp.endpoint, table: mr.remote() }
    },
    set(key: string, value: string): void {
      const { digest, first } = locate(key)
      let at = first * SLOT
      while (table.readUInt32LE(at) !== 0 && !table.subarray(at + KEY, at + VALUE).equals(digest))
        at = (at + SLOT) % table.length
      const version = table.readUInt32LE(at) + 1
      table.writeUInt32LE(version, at)
      digest.copy(table, at + KEY)
      table[at + VALUE] = table.write(value, at + VALUE + 1, END_VERSION - VALUE - 1)
      table.writeUInt32LE(version, at + END_VERSION)
    },
  }
}

/** A client: reads the server's table over a connection of its own. */
const createClient = (device: Device) => {
  const pd = device.pd()
  const slot = Buffer.alloc(SLOT)
  const mr = pd.register(slot)
  const cq = device.cq()
  const qp = pd.rcQp({ sendCq: cq, maxRecvWr: 1 })
  const local = mr.slice()
  let table: RemoteMemory
  return {
    endpoint: qp.endpoint,
    accept(invitation: Invitation): void {
      table = invitation.table
      qp.connect(invitation.endpoint)
    },
    async get(key: string): Promise<string | undefined> {
      const { digest, first } = locate(key)
      for (let index = first; ; ) {
        qp.read(local, { ...table, address: table.address + BigInt(index * SLOT) })
        while (!cq.poll()) await cq.wait()
        if (!cq.completion.ok) throw new Error(`the table cannot be read: ${cq.completion.statusName}`)
        const version = slot.readUInt32LE(0)
        if (version === 0) return undefined
        if (slot.readUInt32LE(END_VERSION) !== version) continue
        if (slot.subarray(KEY, VALUE).equals(digest)) return slot.toString('utf8', VALUE + 1, VALUE + 1 + slot[VALUE])
        index = (index + 1) % slots
      }
    },
  }
}

const network = createNetwork()
await using one = await open({ network })
await using two = await open({ network })
const server = createServer(one)
const client = createClient(two)
client.accept(server.invite(client.endpoint))

for (let i = 0; i < keys; i++) server.set(`key ${i}`, `value ${i}`)
server.set('key 7', 'another value')
const start = performance.now()
let found = 0
for (let i = 0; i < keys; i++) if ((await client.get(`key ${i}`)) !== undefined) found++
const each = ((performance.now() - start) * 1000) / keys
const { hw_counters } = two.counters()
console.log(`${found} of ${keys} keys found, ${each.toFixed(1)} µs each, ${hw_counters.sent_pkts} packets sent`)
console.log(`key 7 is "${await client.get('key 7')}", key x is ${await client.get('key x')}`)
