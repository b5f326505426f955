/*
 * One end of a transport with which the benchmarks of udp.ts compare, with node:dgram and zlib's CRC. Acknowledgements
 * are cumulative, and a window bounds the packets in flight. Nothing is resent: loopback loses no packets while the
 * window is smaller than the socket's buffer.
 */
import { createSocket } from 'node:dgram'
import { crc32 } from 'node:zlib'

/** Bytes of a header. Offset 0: LAST or MORE; 4: PSN, in an ACK the next expected PSN; 8: length of the payload. */
const HEADER = 16
/** Bytes of the CRC behind the payload. */
const CRC = 4
/** The first byte of a packet. LAST marks the last packet of a message; ACKs have it too. */
const MORE = 1
const LAST = 2
/** Maximum packets per acknowledgement: the last packet of a message is acknowledged immediately. */
const ACK_EVERY = 8

/**
 * Sends messages of `size` bytes to the sink at `port`. `window`: maximum bytes of payload in flight;
 * below 2 * ACK_EVERY packets it is raised to that. Answers seconds.
 */
interface Stream {
  readonly kind: 'stream'
  readonly port: number
  readonly messages: number
  readonly size: number
  readonly mtu: number
  readonly window: number
}
/** Round trips with the echo at `port`. Answers microseconds per round trip. */
interface Ping {
  readonly kind: 'ping'
  readonly port: number
  readonly rounds: number
  readonly size: number
}
export type DgramOrder = Stream | Ping | { readonly kind: 'sink' } | { readonly kind: 'echo' }

const socket = createSocket({ type: 'udp4', recvBufferSize: 8 << 20, sendBufferSize: 8 << 20 })

const packet = (payload: Buffer, psn: number, isLast: boolean): Buffer => {
  const bytes = Buffer.allocUnsafe(HEADER + payload.length + CRC)
  bytes.writeUInt8(isLast ? LAST : MORE, 0)
  bytes.writeUInt32BE(psn >>> 0, 4)
  bytes.writeUInt32BE(payload.length, 8)
  payload.copy(bytes, HEADER)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, HEADER + payload.length)), HEADER + payload.length)
  return bytes
}

const hasValidCrc = (bytes: Buffer): boolean =>
  crc32(bytes.subarray(0, bytes.length - CRC)) === bytes.readUInt32BE(bytes.length - CRC)

const sink = (): void => {
  const memory = Buffer.alloc(1 << 20)
  let expected = 0
  socket.removeAllListeners('message')
  socket.on('message', (bytes, { port, address }) => {
    if (!hasValidCrc(bytes) || bytes.readUInt32BE(4) !== expected) return
    const length = bytes.readUInt32BE(8)
    bytes.copy(memory, (expected * length) % (memory.length - length), HEADER, HEADER + length)
    expected++
    if (expected % ACK_EVERY === 0 || bytes.readUInt8(0) === LAST)
      socket.send(packet(Buffer.alloc(0), expected, true), port, address)
  })
}

const stream = ({ port, messages, size, mtu, window }: Stream): Promise<number> =>
  new Promise(resolve => {
    const data = Buffer.alloc(size, 7)
    const perMessage = Math.ceil(size / mtu)
    const total = messages * perMessage
    const windowPackets = Math.max(2 * ACK_EVERY, Math.floor(window / mtu))
    let sent = 0
    let acked = 0
    const start = process.hrtime.bigint()
    const send = (): void => {
      for (; sent < total && sent - acked < windowPackets; sent++) {
        const offset = (sent % perMessage) * mtu
        const isLast = sent % perMessage === perMessage - 1
        socket.send(packet(data.subarray(offset, Math.min(size, offset + mtu)), sent, isLast), port, '127.0.0.1')
      }
    }
    socket.removeAllListeners('message')
    socket.on('message', bytes => {
      acked = Math.max(acked, bytes.readUInt32BE(4))
      if (acked === total) resolve(Number(process.hrtime.bigint() - start) / 1e9)
      else send()
    })
    send()
  })

const echo = (): void => {
  socket.removeAllListeners('message')
  socket.on('message', (bytes, { port, address }) => {
    if (hasValidCrc(bytes)) socket.send(packet(bytes.subarray(HEADER, bytes.length - CRC), 0, true), port, address)
  })
}

const ping = ({ port, rounds, size }: Ping): Promise<number> =>
  new Promise(resolve => {
    const data = Buffer.alloc(size)
    let remaining = rounds
    const start = process.hrtime.bigint()
    socket.removeAllListeners('message')
    socket.on('message', bytes => {
      if (!hasValidCrc(bytes)) return
      if (--remaining === 0) resolve(Number(process.hrtime.bigint() - start) / 1e3 / rounds)
      else socket.send(packet(data, 0, true), port, '127.0.0.1')
    })
    socket.send(packet(data, 0, true), port, '127.0.0.1')
  })

socket.bind(0, '127.0.0.1', () => process.send?.({ port: socket.address().port }))
process.on('message', async (order: DgramOrder) => {
  let value = 0
  if (order.kind === 'sink') sink()
  else if (order.kind === 'echo') echo()
  else value = await (order.kind === 'stream' ? stream(order) : ping(order))
  process.send?.({ value })
})
process.on('disconnect', () => process.exit(0))
