/*
 * IP over the device (RFC 4391): pings between two stacks, then many UDP datagrams over a link that loses packets.
 *
 *   node dist/examples/ping.js [loss] [bytes]        default: 1% 1000000
 */
import { createNetwork, open, type UdpSocket } from 'userdma'

const [loss = '1%', totalBytes = '1000000'] = process.argv.slice(2)
/** Bytes of the transfer in one datagram. */
const CHUNK_BYTES = 1400
/** Maximum unanswered datagrams. */
const WINDOW = 32
/** Milliseconds until an unanswered datagram is sent again. */
const RETRANSMIT_MS = 20
const network = createNetwork()
const clientDevice = await open({ network })
const serverDevice = await open({ network })
const client = clientDevice.ip({ address: '10.9.0.1/24' })
const server = serverDevice.ip({ address: '10.9.0.2/24' })

const times = []
for (let i = 0; i < 10; i++) times.push(await (i % 2 === 0 ? client.ping('10.9.0.2') : server.ping('10.9.0.1')))
console.log(`${times.length} pings answered, the fastest in ${(Math.min(...times) * 1000).toFixed(0)} µs`)

network.setFaults(`drop=${loss},seed=1`)

/** Answers each datagram with the datagram's number, its first 4 bytes, until the signal is aborted. */
const serve = async (socket: UdpSocket, signal: AbortSignal): Promise<void> => {
  for await (const { payload, address, port } of socket) {
    if (signal.aborted) return
    socket.send(payload.subarray(0, 4), { address, port })
  }
}

/** Sends numbered datagrams, and repeats unanswered ones; returns the number of transmissions. */
const send = async (socket: UdpSocket, chunks: number): Promise<number> => {
  /** Time of the last transmission of each unanswered datagram, in milliseconds. */
  const unanswered = new Map<number, number>()
  let [nextNumber, sent] = [0, 0]
  while (nextNumber < chunks || unanswered.size > 0) {
    const now = performance.now()
    const due = [...unanswered.keys()].filter(number => now - unanswered.get(number)! > RETRANSMIT_MS)
    for (; nextNumber < chunks && unanswered.size < WINDOW; nextNumber++) {
      unanswered.set(nextNumber, now)
      due.push(nextNumber)
    }
    for (const number of due) {
      const payload = new Uint8Array(4 + CHUNK_BYTES)
      new DataView(payload.buffer).setUint32(0, number)
      socket.send(payload, { address: '10.9.0.2', port: 7 })
      unanswered.set(number, now)
      sent++
    }
    const timeout = new AbortController()
    const timer = setTimeout(() => timeout.abort(), RETRANSMIT_MS)
    await socket.wait({ signal: timeout.signal }).catch(() => {})
    clearTimeout(timer)
    for (let answer = socket.poll(); answer !== undefined; answer = socket.poll())
      unanswered.delete(new DataView(answer.payload.buffer, answer.payload.byteOffset).getUint32(0))
  }
  return sent
}

const serverSocket = server.udp({ port: 7 })
const stop = new AbortController()
const serving = serve(serverSocket, stop.signal)
const chunks = Math.ceil(Number(totalBytes) / CHUNK_BYTES)
const sent = await send(client.udp(), chunks)
console.log(`${totalBytes} bytes arrived, in ${chunks} datagrams with ${sent - chunks} retransmissions`)
stop.abort()
serverSocket.close()
await serving
await clientDevice.close()
await serverDevice.close()
