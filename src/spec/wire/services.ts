/*
 * The transport services of queue pairs and their upper three bits of BTH.opcode (InfiniBand Architecture
 * Specification, volume 1, clauses 9.2.1 and 9.6; annex A14 for XRC). Queue pair 1 (GSI) has the service UD.
 */
import { opcodeFlags, type TransportName, transportBits } from './opcodes.ts'

/**
 * The engine's numbers of services. An XRC target receives into SRQs and never sends requests. An initiator of DC
 * (docs/decisions/dc.md) only sends requests, to a queue pair of RC. RAW sends and receives whole frames of the link,
 * which have no BTH.
 */
export const Service = { RC: 0, UC: 1, UD: 2, XRC_INI: 3, XRC_TGT: 4, DCI: 5, RAW: 6 } as const
export type ServiceName = keyof typeof Service

const serviceTransport: Readonly<Record<Exclude<ServiceName, 'RAW'>, TransportName>> = {
  RC: 'RC',
  UC: 'UC',
  UD: 'UD',
  XRC_INI: 'XRC',
  XRC_TGT: 'XRC',
  DCI: 'RC',
}

export const SERVICE_COUNT = Object.keys(Service).length

/** Opcodes that no packet of a service has: those for manufacturers (IBA 9.2.1). */
const NO_PACKETS = 0xe0

/** The upper three bits of BTH.opcode, by number of the service. */
export const serviceBits = new Uint8Array(SERVICE_COUNT).fill(NO_PACKETS)
for (const [name, transport] of Object.entries(serviceTransport))
  serviceBits[Service[name as ServiceName]] = transportBits[transport]

/** Whether a service (a number of `Service`) has an opcode with these lower five bits. */
export const hasOperation = (service: number, code: number): boolean => opcodeFlags[serviceBits[service]! | code] !== 0

/** By number of the service: 1 if it has acknowledgements, otherwise 0. */
export const reliableService = new Uint8Array(SERVICE_COUNT)
for (const name of ['RC', 'XRC_INI', 'XRC_TGT', 'DCI'] as const) reliableService[Service[name]] = 1
