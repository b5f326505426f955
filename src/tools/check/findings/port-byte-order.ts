/*
 * The finding that a connection is requested at the port of a listener in the other byte order: one of the two programs
 * has forgotten htons.
 */
import type { Moment } from '../../../spec/check/finding.ts'
import type { CheckedCall } from '../../../spec/check/program-events.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type KnownObject, moment } from '../objects.ts'

const AF_INET = 2
const AF_INET6 = 10

/** The ports of an identifier. `bound`, `resolved`: the calls that gave them. */
interface Ports {
  source?: number | undefined
  bound?: Moment
  destination?: number | undefined
  resolved?: Moment
  isListening: boolean
}

/** The port of a struct sockaddr_in or sockaddr_in6; undefined: of none of these, or 0. */
const portOf = (address: unknown): number | undefined => {
  if (!(address instanceof Uint8Array) || address.length < 4) return undefined
  const view = new DataView(address.buffer, address.byteOffset, address.byteLength)
  const family = view.getUint16(0, true)
  const port = view.getUint16(2)
  return (family === AF_INET || family === AF_INET6) && port !== 0 ? port : undefined
}

const swap16 = (value: number): number => ((value & 0xff) << 8) | (value >> 8)

export const createCmPortDetector = (services: DetectorServices): Detector => {
  /** Of identifiers that exist, by `CoreObject.id`. */
  const ports = new Map<number, Ports>()
  /** The ids of identifiers that listen, by port. */
  const listeners = new Map<number, Set<number>>()

  const of = (id: number): Ports => {
    const known = ports.get(id) ?? { isListening: false }
    ports.set(id, known)
    return known
  }

  /** The identifier listens, or its port is known now. */
  const noteListener = (id: number, { isListening, source }: Ports): void => {
    if (!isListening || source === undefined) return
    const ids = listeners.get(source) ?? new Set()
    listeners.set(source, ids.add(id))
  }

  const destroyed = (id: number): void => {
    const { source = 0 } = ports.get(id) ?? {}
    ports.delete(id)
    const ids = listeners.get(source)
    ids?.delete(id)
    if (ids?.size === 0) listeners.delete(source)
  }

  const listenerAt = (port: number): [KnownObject, Ports] | undefined => {
    const [id] = listeners.get(port) ?? []
    const listener = id === undefined ? undefined : services.objects.find(id)
    const known = id === undefined ? undefined : ports.get(id)
    return listener && known && [listener, known]
  }

  const connects = (call: CheckedCall, id: KnownObject, { destination, resolved }: Ports): void => {
    if (destination === undefined || listenerAt(destination) !== undefined) return
    const swapped = swap16(destination)
    const found = listenerAt(swapped)
    if (found === undefined) return
    const [listener, { bound }] = found
    const text = `${id.name} connects to port ${destination}, where nobody listens; ${listener.nameWithProgram} listens at port ${swapped}, the same bytes in the other order`
    services.report('port-byte-order', call, {
      text,
      moments: [resolved, bound].filter(one => one !== undefined),
      objects: [id, listener],
    })
  }

  return {
    on: {
      called(call, object) {
        const { method, refused, args, out, time, stack } = call
        if (object.class !== 'cm_id' || refused !== undefined) return
        if (method === 'destroy') destroyed(object.id)
        else if (method === 'bind') {
          const source = portOf(args.address)
          Object.assign(of(object.id), { source, bound: moment('bound', time, stack) })
        } else if (method === 'query') {
          // librdmacm asks for the port that was chosen.
          const { source } = (out.addresses ?? {}) as { readonly source?: unknown }
          const known = ports.get(object.id)
          if (known !== undefined && known.source === undefined) {
            known.source = portOf(source)
            noteListener(object.id, known)
          }
        } else if (method === 'listen') {
          const known = of(object.id)
          known.isListening = true
          noteListener(object.id, known)
        } else if (method === 'resolveAddress')
          Object.assign(of(object.id), {
            destination: portOf(args.destination),
            resolved: moment('resolved the address', time, stack),
          })
        else if (method === 'connect') connects(call, object, of(object.id))
      },
    },
  }
}
