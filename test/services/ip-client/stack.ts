/*
 * A program that uses IP over a device with the classes ip_interface and ip_socket.
 */
import assert from 'node:assert/strict'
import { closeContext, closeDescriptor, invokeNow, noMemory, openContext } from '../../../src/core/index.ts'
import type { Account, Caller, Context, Core, Device } from '../../../src/core/model.ts'
import { IpInterfaceClass, IpSocketClass } from '../../../src/spec/classes/device/ip.ts'
import { IpProtocol } from '../../../src/spec/enums.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { address } from '../ip-engine/link.ts'

interface Received {
  readonly address: Uint8Array
  readonly port: number
  readonly payload: Uint8Array
}

const caller: Caller = {
  memory: noMemory,
  copyIn: (_address, length) => new Uint8Array(length),
  copyOut: () => {},
  descriptor: fd => fd,
}

class Socket {
  readonly number: number
  readonly #core: Core
  readonly #context: Context

  constructor(context: Context, iface: number, protocol: number, port: number) {
    this.#context = context
    this.#core = context.device.core
    const args = { interface: iface, protocol, port }
    this.number = invokeNow(context, IpSocketClass, 'create', 0, args, caller).descriptors![0]!.object
  }

  query() {
    return invokeNow(this.#context, IpSocketClass, 'query', this.number, {}, caller).out
  }

  get isReadable(): boolean {
    return (this.#core.descriptors.get(this.number)?.sink.unread() ?? 0) > 0
  }

  send(to: string, port: number, payload: Uint8Array): void {
    invokeNow(this.#context, IpSocketClass, 'send', this.number, { address: address(to), port, payload }, caller)
  }

  receive(): Received | undefined {
    try {
      return invokeNow(this.#context, IpSocketClass, 'receive', this.number, {}, caller).out
    } catch (error) {
      if (error instanceof CallError && error.errno === Errno.EAGAIN) return undefined
      throw error
    }
  }

  /** A `receive` whose answer cannot be delivered. */
  receiveInVain(): void {
    invokeNow(this.#context, IpSocketClass, 'receive', this.number, {}, caller).putBack?.()
  }

  join(group: string): void {
    invokeNow(this.#context, IpSocketClass, 'join', this.number, { group: address(group) }, caller)
  }

  leave(group: string): void {
    invokeNow(this.#context, IpSocketClass, 'leave', this.number, { group: address(group) }, caller)
  }

  close(): void {
    closeDescriptor(this.#core, this.number)
  }
}

/** A context with an interface. */
export class Stack {
  readonly context: Context
  readonly number: number
  /** The outputs of ip_interface.create. */
  readonly linkAttributes: { readonly qpn: number; readonly gid: Uint8Array; readonly mtu: number }

  constructor(device: Device, localAddress: string, prefixLength?: number, account?: Account) {
    this.context = openContext(device, { isOpened: true, ...(account && { account }) })
    const args = { address: address(localAddress), ...(prefixLength !== undefined && { prefixLength }) }
    const { object, out } = invokeNow(this.context, IpInterfaceClass, 'create', 0, args, caller)
    assert.ok(object !== undefined)
    this.number = object
    this.linkAttributes = out
  }

  query() {
    return invokeNow(this.context, IpInterfaceClass, 'query', this.number, {}, caller).out
  }

  destroy(): void {
    invokeNow(this.context, IpInterfaceClass, 'destroy', this.number, {}, caller)
  }

  udp(port = 0): Socket {
    return new Socket(this.context, this.number, IpProtocol.values.UDP, port)
  }

  echo(): Socket {
    return new Socket(this.context, this.number, IpProtocol.values.ICMP, 0)
  }

  close(): void {
    closeContext(this.context)
  }
}
