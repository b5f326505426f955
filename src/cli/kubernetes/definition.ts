/*
 * Services of kubelet's API (device-plugin.ts) as @grpc/grpc-js wants them.
 */
import type { ServiceDefinition } from '@grpc/grpc-js'
import { Services } from './device-plugin.ts'
import { decode, encode } from './messages.ts'

/** The definition of a service. Its messages are those of the table. */
export const definitionOf = (service: keyof typeof Services): ServiceDefinition =>
  Object.fromEntries(
    Object.entries(Services[service]).map(([name, { request, response, isStream }]) => [
      name,
      {
        path: `/${service}/${name}`,
        requestStream: false,
        responseStream: isStream,
        requestSerialize: (value: object) => encode(request, value),
        requestDeserialize: (bytes: Buffer) => decode(request, bytes),
        responseSerialize: (value: object) => encode(response, value),
        responseDeserialize: (bytes: Buffer) => decode(response, bytes),
      },
    ]),
  )
