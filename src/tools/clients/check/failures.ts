/*
 * Gives the failures of a core to the stream of program events.
 */
import { addFailureHandler } from '../../../core/failures.ts'
import type { Core } from '../../../core/model.ts'
import type { Failure } from '../../../spec/check/failures.ts'
import { placeOf } from '../../../spec/check/program-events.ts'
import type { RequestNumber, WorkRequest } from '../../../spec/check/requests.ts'
import { addressText, lidAddress } from '../../../transport/wire/address.ts'
import type { ProgramStream } from '../../events/stream.ts'
import type { RequestPoll } from '../requests/watch.ts'
import { gidsOf } from './call-hook.ts'
import { deviceWithPort } from './probes.ts'
import type { HostSources } from './sources.ts'
import type { WatchedDevices } from './watched-devices.ts'

/** The request that has failed; undefined: none has, or it is unknown. */
const requestBehind = ({ kind, qpn, wrId }: Failure, poll: RequestPoll | undefined): WorkRequest | undefined =>
  qpn === undefined || wrId === undefined || kind === 'post'
    ? undefined
    : poll?.requestOf(qpn, kind === 'receive' || kind === 'drop', wrId)

/** A failure with the program's own wr_id, if the device knows the request by another. */
const inOwnWords = (
  failure: Failure,
  request: WorkRequest | undefined,
  numbered: RequestNumber | undefined,
): Failure => {
  const { kind, qpn, wrId } = failure
  if (request !== undefined && request.numbered === undefined)
    return wrId === request.wrId ? failure : { ...failure, wrId: request.wrId }
  return numbered === undefined || kind === 'post' || qpn === undefined || wrId === undefined
    ? failure
    : { ...failure, numbered }
}

export const reportFailures = (
  core: Core,
  stream: ProgramStream,
  sources: HostSources,
  watched: WatchedDevices,
): void => {
  addFailureHandler(core, (found, device, context) => {
    const { index } = device
    if (found.event !== undefined && (found.cause.id === 'PORT_EVENT' || found.cause.id === 'SUBNET_EVENT'))
      stream.event({ event: 'portEvent', device: index, type: found.event, gids: gidsOf(device) })
    if (found.event !== undefined && found.cause.id === 'DEVICE_REMOVED')
      stream.event({ event: 'deviceEvent', device: index, type: found.event })
    const request = requestBehind(found, watched.poll(index))
    const failure = inOwnWords(
      found,
      request,
      context?.mapped?.packed === undefined ? device.driver.requests?.numbered : undefined,
    )
    if (context === undefined || !sources.isChecked(context)) return
    // Its memory ends before the context: what the program has waited for is the first finding.
    if (failure.cause.id === 'LOCAL_ENDED') sources.closing?.(context)
    const { peer } = failure
    watched.whileClosing(context, () =>
      stream.event({
        event: 'failed',
        time: stream.next(),
        deviceNumber: index,
        context: context.id,
        program: sources.program(context),
        failure,
        ...(request && { request: placeOf(request) }),
        peerDevice:
          peer &&
          deviceWithPort(
            core,
            ({ gids: { entries }, attributes: { lid } }) =>
              entries.some(entry => entry && addressText(entry.gid) === peer.address) ||
              (lid !== 0 && addressText(lidAddress(lid)) === peer.address),
          ),
      }),
    )
  })
}
