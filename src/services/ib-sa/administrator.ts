/*
 * Queries of core's clients to the subnet administrator (IBA 15.2), from queue pair 1 of an InfiniBand port, as Linux's
 * ib_sa. An answer counts if it comes from the subnet manager's LID, and has the random transaction id of an open
 * query.
 */
import type { MadAddress } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { callError, Errno } from '../../spec/errno.ts'
import { GSI_QPN, MAD_BASE_VERSION, MAD_BYTES } from '../../spec/wire/mad.ts'
import { MadClass, type MadMethod } from '../../spec/wire/management.ts'
import { DEFAULT_PARTITION, SA_VERSION, type SaMethod, saRecords } from '../../spec/wire/subnet.ts'
import { type SaRecord, type SaRecordName, saCodec, saCodecs } from '../../transport/wire/mad/subnet.ts'
import type { MadAgent, MadLayer } from '../mad-client/layer.ts'

interface SaQuery<N extends SaRecordName> {
  readonly name: N
  readonly method: (typeof MadMethod)['GET' | 'SET'] | (typeof SaMethod)['DELETE']
  /** Its fields are the components that count. */
  readonly record: Partial<SaRecord<N>>
  /** Microseconds until the query fails. */
  readonly timeout: number
}

/** A record, or −errno: ETIMEDOUT, or EINVAL if the administrator refuses. */
type SaAnswer<N extends SaRecordName> = SaRecord<N> | number

/** Sends of a query in its timeout. */
const SENDS = 10

interface Open {
  readonly smLid: number
  readonly ended: (response: Uint8Array | undefined) => void
}

const NO_GID = new Uint8Array(16)

const pathTo = (local: number, remote: number, sl: number): MadAddress => ({
  ...{ localGid: NO_GID, remoteGid: NO_GID, lids: { local, remote, sl, isGlobal: false } },
  ...{ qpn: GSI_QPN, pkey: DEFAULT_PARTITION, flowLabel: 0, trafficClass: 0, hopLimit: 0 },
})

export class SubnetAdministrator {
  readonly #device: Device
  readonly #agent: MadAgent<Open>
  readonly #random: () => number
  #response: Uint8Array | undefined
  #isClosed = false

  /** `random` returns a u32. */
  constructor(device: Device, mads: Pick<MadLayer, 'createAgent'>, random: () => number) {
    this.#device = device
    this.#random = random
    let sender = 0
    this.#agent = mads.createAgent<Open>(
      device,
      { claim: undefined, engineDoesRmpp: false },
      {
        receive: (message, { lids }) => {
          this.#response = message
          sender = lids?.remote ?? 0
        },
        ended: ({ smLid, ended }, outcome) => {
          if (!this.#isClosed) ended(outcome === 'answered' && sender === smLid ? this.#response : undefined)
        },
      },
    )
  }

  /**
   * `done` is called once, perhaps during the call; not after `close`, nor after the returned function was called.
   * Throws CallError EAGAIN if the port has no subnet manager.
   */
  ask<N extends SaRecordName>(
    { name, method, record, timeout }: SaQuery<N>,
    done: (answer: SaAnswer<N>) => void,
  ): () => void {
    const { smLid, lid, smSl } = this.#device.ports[0]!.attributes
    if (smLid === 0)
      throw callError.EAGAIN`port 1 of ${this.#device.name} has no subnet manager, whom to ask for paths and groups`
    let isWanted = true
    const codec = saCodecs[name]
    const mad = new Uint8Array(MAD_BYTES)
    saCodec.emit(
      {
        baseVersion: MAD_BASE_VERSION,
        mgmtClass: MadClass.SUBNET_ADMINISTRATION,
        classVersion: SA_VERSION,
        method,
        tid: BigInt(this.#random()),
        attribute: saRecords[name].id,
        componentMask: codec.mask(...(Object.keys(record) as never[])),
        data: codec.emit(record as never),
      },
      mad,
    )
    const ended = (response: Uint8Array | undefined): void => {
      if (!isWanted) return
      const answer = response && saCodec.parse(response)
      if (answer === undefined) done(-Errno.ETIMEDOUT)
      else done(answer.status === 0 ? (codec.parse(answer.data) as SaRecord<N>) : -Errno.EINVAL)
    }
    const tag = { smLid, ended }
    this.#agent.send(mad, pathTo(lid, smLid, smSl), { timeout: timeout / SENDS, retries: SENDS - 1, tag })
    return () => {
      isWanted = false
      this.#agent.abort(tag)
    }
  }

  close(): void {
    this.#isClosed = true
    this.#agent.close()
  }
}
