/*
 * A program that uses rdma_cm with the classes cm_channel, cm_id and cm_multicast.
 */
import assert from 'node:assert/strict'
import { invokeNow, noMemory, openContext, systemDevice } from '../../../src/core/index.ts'
import type { Account, Caller, Context } from '../../../src/core/model.ts'
import { emitAddress } from '../../../src/services/socket-address.ts'
import { CmChannel } from '../../../src/spec/classes/connections/cm_channel.ts'
import { CmId, CmMulticast } from '../../../src/spec/classes/connections/cm_id.ts'
import type { SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { type Host, parametersOf } from './hosts.ts'

export const typeNames = Object.fromEntries(Object.entries(CmEventType.values).map(([name, value]) => [value, name]))

/** A program: its channels belong to one context. */
export class Program {
  readonly context: Context
  readonly caller: Caller

  constructor({ core }: Host, account?: Account) {
    this.context = openContext(systemDevice(core), { isOpened: true, ...(account && { account }) })
    this.caller = {
      memory: noMemory,
      copyIn: (_address, length) => new Uint8Array(length),
      copyOut: () => {},
      descriptor: fd => fd,
    }
  }

  channel(): number {
    return invokeNow(this.context, CmChannel, 'create', 0, {}, this.caller).descriptors![0]!.object
  }

  create(channel: number, userHandle = 0n, portSpace: number = CmPortSpace.values.TCP): number {
    return invokeNow(this.context, CmId, 'create', 0, { channel, userHandle, portSpace }, this.caller).object!
  }

  bind(id: number, address: SocketAddress): void {
    invokeNow(this.context, CmId, 'bind', id, { address: emitAddress(address) }, this.caller)
  }

  listen(channel: number, address: SocketAddress, backlog = 0, portSpace: number = CmPortSpace.values.TCP): number {
    const id = this.create(channel, 0n, portSpace)
    this.bind(id, address)
    invokeNow(this.context, CmId, 'listen', id, { backlog }, this.caller)
    return id
  }

  resolve(id: number, to: SocketAddress): void {
    invokeNow(this.context, CmId, 'resolveAddress', id, { destination: emitAddress(to) }, this.caller)
  }

  connect(channel: number, to: SocketAddress, qpn: number): number {
    const id = this.create(channel)
    this.resolve(id, to)
    invokeNow(this.context, CmId, 'resolveRoute', id, {}, this.caller)
    invokeNow(this.context, CmId, 'connect', id, { parameters: parametersOf(qpn) }, this.caller)
    return id
  }

  accept(id: number, qpn?: number, userHandle = 0n): void {
    const args = { userHandle, ...(qpn !== undefined && { parameters: parametersOf(qpn) }) }
    invokeNow(this.context, CmId, 'accept', id, args, this.caller)
  }

  /** Returns the number of the identifier's events that the program has read. */
  destroy(id: number): number {
    return invokeNow(this.context, CmId, 'destroy', id, {}, this.caller).out.events
  }

  /** Moves an identifier to a channel; returns the number of its events that the program has read. */
  move(id: number, channel: number): number {
    return invokeNow(this.context, CmId, 'modify', id, { channel }, this.caller).out.events
  }

  join(id: number, group: SocketAddress, userHandle = 0n): number {
    const args = { id, userHandle, address: emitAddress(group) }
    return invokeNow(this.context, CmMulticast, 'create', 0, args, this.caller).object!
  }

  /** Returns the number of the membership's events that the program has read. */
  leave(group: number): number {
    return invokeNow(this.context, CmMulticast, 'destroy', group, {}, this.caller).out.events
  }

  unread(channel: number): number {
    return invokeNow(this.context, CmChannel, 'query', channel, {}, this.caller).out.unread
  }

  /** Reads the oldest event of a channel. */
  readEvent(channel: number): { name: string; object: number; userHandle: bigint } {
    const { out } = invokeNow(this.context, CmChannel, 'getEvent', channel, {}, this.caller)
    assert.equal(out.unread, this.unread(channel))
    return { name: typeNames[out.type] ?? '?', object: out.object, userHandle: out.userHandle }
  }

  /** Reads all events of a channel; returns their names. */
  readNames(channel: number): string[] {
    const found: string[] = []
    while (this.unread(channel) > 0) found.push(this.readEvent(channel).name)
    return found
  }
}
