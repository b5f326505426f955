/*
 * The RoCEv2 packets of the captures in test/fixtures/wire, in the form that a port passes to the tracer.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { PacketFlow } from '../../../src/spec/wire/flow.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { type Ipv4Frame, type Ipv6Frame, parseFrame } from '../../../src/transport/wire/frame.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'

interface CapturedRoce {
  readonly file: string
  readonly frame: Ipv4Frame | Ipv6Frame
  readonly flow: PacketFlow
  readonly identification: number
}

const to16Bytes = (address: Uint8Array): Uint8Array =>
  address.length === 16 ? address : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...address)

export const capturedPackets: readonly CapturedRoce[] = readdirSync(fixture('wire'))
  .filter(name => name.endsWith('.pcap'))
  .sort()
  .flatMap(file =>
    readCapture(readFileSync(fixture('wire', file))).flatMap(({ bytes }) => {
      const frame = parseFrame(bytes)
      if (frame.kind === 'opaque' || frame.destinationPort !== ROCE_UDP_PORT) return []
      const { sourcePort, trafficClass, hopLimit } = frame
      const flowLabel = frame.kind === 'ipv6' ? frame.flowLabel : 0
      const flow = { sourcePort, trafficClass, hopLimit, flowLabel }
      return [
        {
          file,
          frame,
          flow: { ...flow, source: to16Bytes(frame.source), destination: to16Bytes(frame.destination) },
          identification: frame.kind === 'ipv4' ? frame.identification : 0,
        },
      ]
    }),
  )
