/*
 * What this host tells other hosts of a net of a queue pair of its own (spec/check/peer-facts.ts).
 */
import type { PeerFacts, PeerObject } from '../../spec/check/peer-facts.ts'
import type { DetectorServices } from './detector.ts'
import type { KnownObject, QpAttributes } from './objects.ts'
import { STORIES } from './story/lines.ts'

/** Regions that are told of a program. */
const MAX_REGIONS = 16
/** Frames of a moment or a line that are told. */
const MAX_FRAMES = 8

const NUMBERS = [
  ...(['state', 'destQpn', 'sqPsn', 'rqPsn', 'pathMtu', 'timeout', 'retryCnt', 'rnrRetry', 'minRnrTimer'] as const),
  ...(['maxRdAtomic', 'maxDestRdAtomic', 'qkey', 'pkeyIndex', 'accessFlags'] as const),
]

/** Without the objects that a queue pair was created with. */
const toldAttributes = ({ address, ...numbers }: QpAttributes): QpAttributes => {
  const told: QpAttributes = {}
  for (const name of NUMBERS) if (numbers[name] !== undefined) told[name] = numbers[name]
  if (address !== undefined) {
    const { dgid, sgidIndex, trafficClass, sl } = address
    told.address = {
      ...{ dgid, sgidIndex },
      ...(trafficClass !== undefined && { trafficClass }),
      ...(sl !== undefined && { sl }),
    }
  }
  return told
}

/** An object as another host is told of it. */
const told = (object: KnownObject, time: number): PeerObject => {
  const { handle, class: name, program, history, destruction, attributes, failure, qpn, lkey, rkey, size } = object
  return {
    ...{ handle, class: name, program, isDestroyed: destruction !== undefined && destruction.time <= time },
    history: history
      .filter(moment => moment.time <= time)
      .map(({ stack, ...moment }) => ({ ...moment, stack: stack.slice(0, MAX_FRAMES) })),
    args: {
      ...(object.isQp
        ? { cap: { maxSendWr: object.requestedSends, maxRecvWr: object.requestedReceives } }
        : { length: size, start: object.start, iova: object.iova, kind: object.regionKind }),
    },
    out: object.isQp ? { qpNum: qpn, cap: object.limits } : { lkey, rkey },
    attributes: { ...toldAttributes(attributes) },
    ...(failure && { failure }),
  }
}

/** What this host tells of a queue pair of its own, as it was at `time`. `state`: now. */
export const peerFactsOf = (
  services: DetectorServices,
  {
    device,
    qpn,
    time,
    state,
  }: { readonly device: number; readonly qpn: number; readonly time: number; readonly state: number | undefined },
): Omit<PeerFacts, 'device' | 'clock'> => {
  const { objects } = services
  const qp = objects.qp(device, qpn)
  if (qp === undefined) return { regions: [], story: [] }
  const { key } = qp.failure?.cause.args ?? {}
  const named = typeof key === 'number' ? objects.region(device, key) : undefined
  const regions = objects.existingIn(qp.context).filter(({ class: name }) => name === 'mr')
  return {
    qp: told(qp, time),
    ...(state !== undefined && qp.history.every(moment => moment.time <= time) && { state }),
    regions: [...new Set([...(named ? [named] : []), ...regions.slice(-MAX_REGIONS)])].map(region =>
      told(region, time),
    ),
    // Marked is what has ended the connection.
    story: services
      .need(STORIES)
      .of('peer-not-ready', { ...services.occurrenceAt(qp, []), time }, [qp, qp])
      .filter(line => line.time <= time && line.host === undefined)
      .map(line => ({ ...line, stack: line.stack.slice(0, MAX_FRAMES) })),
  }
}
