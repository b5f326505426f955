/*
 * A REQ for tests that need any valid one.
 */
import { Mtu } from '../../../src/spec/enums.ts'
import { transportType } from '../../../src/spec/wire/mad.ts'
import type { CmDraft } from '../../../src/transport/wire/mad/mad.ts'

/** Fields of a REQ for an RC queue pair, without ids, CA GUID, QPN, GIDs and service id. */
export const plainRequest = {
  name: 'REQ',
  initiatorDepth: 1,
  responderResources: 1,
  remoteResponseTimeout: 20,
  localResponseTimeout: 20,
  transportType: transportType.RC,
  flowControl: false,
  startingPsn: 1,
  retryCount: 7,
  pkey: 0xffff,
  pathMtu: Mtu.values.MTU_1024,
  rnrRetryCount: 7,
  maxCmRetries: 15,
  srq: false,
  localLid: 0xffff,
  remoteLid: 0xffff,
  flowLabel: 1,
  trafficClass: 0,
  hopLimit: 64,
  sl: 0,
} as const satisfies Omit<CmDraft<'REQ'>, 'tid'>
