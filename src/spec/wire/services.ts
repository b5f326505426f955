/*
 * The transport services of queue pairs and their upper three bits of BTH.opcode (InfiniBand Architecture
 * Specification, volume 1, clauses 9.2.1 and 9.6; annex A14 for XRC). Queue pair 1 (GSI) has the service UD.
 */
import { opcodeFlags, type TransportName, transportBits } from './opcodes.ts'

/**
 * The engine's numbers of services. An XRC target receives into SRQs and never sends requests. An initiator of DC
 * (docs/decisions/dc.md) only sends requests, to a queue pair of RC.
 */
export const Service = { RC: 0, UC: 1, UD: 2, XRC_INI: 3, XRC_TGT: 4, DCI: 5 } as const
export type ServiceName = keyof typeof Service

const serviceTransport: Readonly<Record<ServiceName, TransportName>> = {
  RC: 'RC',
  UC: 'UC',
  UD: 'UD',
  XRC_INI: 'XRC',
  XRC_TGT: 'XRC',
  DCI: 'RC',
}

export const SERVICE_COUNT = Object.keys(Service).length

/** The upper three bits of BTH.opcode, by number of the service. */
export const serviceBits = new Uint8Array(SERVICE_COUNT)
for (const [name, number] of Object.entries(Service))
  serviceBits[number] = transportBits[serviceTransport[name as ServiceName]]

/** Whether a service (a number of `Service`) has an opcode with these lower five bits. */
export const hasOperation = (service: number, code: number): boolean => opcodeFlags[serviceBits[service]! | code] !== 0

/** By number of the service: 1 if it has acknowledgements, otherwise 0. */
export const reliableService = new Uint8Array(SERVICE_COUNT)
for (const name of ['RC', 'XRC_INI', 'XRC_TGT', 'DCI'] as const) reliableService[Service[name]] = 1
