/*
 * Prints a capture: one line per RoCEv2 packet, with wrong ICRCs marked, and the number of packets of each operation.
 *
 *   node dist/examples/decode-pcap.js FILE.pcap
 */
import { createReadStream } from 'node:fs'
import { readCapture } from 'userdma'
import { packetLine } from 'userdma/trace'
import { arenaOver, type Ipv4Frame, type Ipv6Frame, makeFlow, parseFrame, parsePacket, verifyIcrc } from 'userdma/wire'

const ROCE_PORT = 4791
const LINKTYPE_ETHERNET = 1
const text = (address: Uint8Array): string =>
  address.length === 4 ? address.join('.') : (Buffer.from(address).toString('hex').match(/.{4}/g) ?? []).join(':')

/** True if the packet has the correct ICRC. */
const isIntact = (frame: Ipv4Frame | Ipv6Frame): boolean => {
  const { payload } = frame
  const identification = frame.kind === 'ipv4' ? frame.identification : 0
  const dontFragment = frame.kind === 'ipv4' ? frame.dontFragment : true
  return verifyIcrc(arenaOver(payload), 0, payload.length, makeFlow({ ...frame, dontFragment }), identification)
}

const file = process.argv[2]
if (file === undefined) {
  console.error('usage: node dist/examples/decode-pcap.js FILE.pcap')
  process.exit(2)
}
const counts = new Map<string, number>()
let wrongIcrcs = 0
let firstTime: bigint | undefined
for await (const { bytes, linkType, time = 0n } of readCapture(createReadStream(file))) {
  if (linkType !== LINKTYPE_ETHERNET) {
    console.error(`${file}: link type ${linkType} is not Ethernet (1); capture on one interface (tcpdump -i eth0)`)
    process.exit(1)
  }
  const frame = parseFrame(bytes)
  if (frame.kind === 'opaque' || frame.destinationPort !== ROCE_PORT) continue
  firstTime ??= time
  const packet = parsePacket(frame.payload)
  const name = packet.kind === 'opaque' ? 'malformed' : packet.name
  counts.set(name, (counts.get(name) ?? 0) + 1)
  const hasRightIcrc = isIntact(frame)
  if (!hasRightIcrc) wrongIcrcs++
  const microseconds = String((time - firstTime) / 1000n).padStart(8)
  console.log(
    `${microseconds} µs  ${text(frame.source)} → ${text(frame.destination)}  ${packetLine(packet)}${hasRightIcrc ? '' : '  WRONG ICRC'}`,
  )
}
console.log('')
for (const [name, count] of [...counts].sort((a, b) => b[1] - a[1]))
  console.log(`${String(count).padStart(6)}  ${name}`)
console.log(`${String(wrongIcrcs).padStart(6)}  with a wrong ICRC`)
