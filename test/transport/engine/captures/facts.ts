/*
 * Facts that a replay needs and that the packets of a capture do not show. They are taken from the options and sources
 * of the recorded programs (test/fixtures/wire/ORIGIN.md).
 */
import { Access } from '../../../../src/transport/engine/types.ts'
import type { Loss, Side } from './conversation.ts'

export interface Facts {
  readonly loss?: Loss
  /** Code of the local ACK timeout; the default is 14. */
  readonly timeout?: number
  /** The default is 7. */
  readonly retryCnt?: number
  /** The default is 7. */
  readonly rnrRetry?: number
  /** READs and atomics that both sides allow in flight. */
  readonly rdAtomic?: number
  /** All requests were posted with one doorbell. */
  readonly postedAtOnce?: boolean
  /** Indexes of the messages posted with a fence. */
  readonly fences?: readonly number[]
  /** Receive buffer sizes of the server; large enough if absent. */
  readonly receives?: readonly number[]
  /** Keys for parts of the server's buffer; `access` has ibv_access_flags. */
  readonly windows?: readonly {
    readonly key: number
    readonly offset: number
    readonly length: number
    readonly access: number
  }[]
  /** Indexes of the signaled messages; all if absent. */
  readonly signaled?: readonly number[]
  /** After the last packet the client's last retry times out. */
  readonly exhaustsRetries?: boolean
  /** A side's queue pair is destroyed before packet number `from` of the file. */
  readonly destroyed?: { readonly side: Side; readonly from: number }
  /** Programs rewrite the memory that the peer reads, so its contents are taken from the recorded responses. */
  readonly programWrites?: boolean
  /** Additional ibv_access_flags of memory and queue pairs. */
  readonly access?: number
  /** `logs/NAME.log` has the keys, addresses and completions. */
  readonly hasLog?: boolean
}

/** Facts about the programs that were written for the recordings. */
const probe: Facts = { hasLog: true, timeout: 16, rdAtomic: 4 }

export const factsOf: Readonly<Record<string, Facts>> = {
  send_pad: probe,
  send_imm: probe,
  send_burst: { ...probe, signaled: [7] },
  send_80_packets: probe,
  write_only: probe,
  write_imm: probe,
  write_burst: { ...probe, signaled: [11] },
  read_many: probe,
  read_many_mtu256: probe,
  read_limit: { ...probe, rdAtomic: 1, postedAtOnce: true, fences: [3] },
  atomics: probe,
  atomics_ipv6: probe,
  psn_wrap: probe,
  linux612_new_operations: { ...probe, access: Access.FLUSH_GLOBAL },
  uc_mix: probe,
  ud_send: probe,
  ud_multicast: probe,
  ud_multicast_ipv6: probe,
  cm_loss_at_server: { loss: { to: 1, interval: 2 } },
  cm_loss_at_client: { loss: { to: 0, interval: 2 } },
  memory_window_type2: {
    ...probe,
    windows: [{ key: 0x0800_0380, offset: 4096, length: 4096, access: Access.REMOTE_WRITE }],
  },
  memory_window_type1: {
    ...probe,
    windows: [{ key: 0x0800_0402, offset: 4096, length: 4096, access: Access.REMOTE_WRITE | Access.REMOTE_READ }],
  },
  rnr_nak: probe,
  rnr_retry_exceeded: { ...probe, rnrRetry: 2 },
  nak_access_write: probe,
  nak_access_read: probe,
  nak_access_range: probe,
  nak_access_permission: probe,
  nak_operation_too_long: { ...probe, receives: [64] },
  nak_operation_too_long_multi: { ...probe, receives: [1500] },
  bad_invalidate: probe,
  retry_exceeded: { ...probe, timeout: 14, retryCnt: 3, exhaustsRetries: true, destroyed: { side: 1, from: 1 } },
  rping: { programWrites: true },
  rping_ipv6: { programWrites: true },
  // the server has closed before the client's last WRITE arrives
  rstream: { destroyed: { side: 1, from: 70 } },
  loss_send_requests: { ...probe, loss: { to: 1, interval: 7 } },
  loss_write_requests: { ...probe, loss: { to: 1, interval: 7 } },
  loss_send_acks: { ...probe, loss: { to: 0, interval: 2 } },
  loss_read_responses: { ...probe, loss: { to: 0, interval: 5 } },
  loss_read_requests: { ...probe, loss: { to: 1, interval: 4 } },
  loss_atomic_responses: { ...probe, loss: { to: 0, interval: 3 } },
}

/** Captures that are not replayed, and the reasons. */
export const excluded: Readonly<Record<string, string>> = {
  inject: 'forged packets: test/transport/engine/captures/forged.test.ts',
  linux612_inject: 'forged packets: test/transport/engine/captures/forged.test.ts',
}
