/*
 * Which network namespaces see which devices (Linux: rdma_dev_access_netns), for netlink, opens of device nodes,
 * rdma_cm and the files that programs read. At first all namespaces share the devices. If they are exclusive (`rdma
 * system set netns exclusive`), a device is seen only in its own: at first that of the daemon, later the one that it
 * was moved to (`rdma dev set DEVICE netns NAME`).
 *
 * As in Linux, a move ends all contexts of the device, and a device whose namespace ends returns. A namespace ends
 * unnoticed, so the return is when programs look for devices, at most once a second. Otherwise than in Linux, devices
 * also return when they are shared again, and the mode can change while other namespaces exist, unless one of their
 * programs has a session.
 */
import type { Device } from '../../core/model.ts'
import { livingNamespaces, networkNamespaceOf } from '../../host/network-namespaces.ts'
import { CallError, callError } from '../../spec/errno.ts'
import type { DaemonDevice, DeviceListener, Devices } from './devices.ts'

/** Milliseconds between two searches for namespaces that have ended. */
const SEARCH_INTERVAL = 1000

export class DeviceNamespaces implements DeviceListener {
  readonly #devices: Devices
  /** The daemon's; '' if the system has no namespaces. */
  readonly #own = networkNamespaceOf('self') ?? ''
  /** Of devices that are not in the daemon's namespace. */
  readonly #moved = new WeakMap<Device, string>()
  #isShared = true
  /** The namespace of a device that is being added. */
  #next: string | undefined
  #nextSearch = 0

  readonly #run: (job: Generator) => void

  /** Must be the first listener of `devices`. `run`: runs a job in slices. */
  constructor(devices: Devices, run: (job: Generator) => void) {
    this.#run = run
    this.#devices = devices
    devices.listeners.add(this)
  }

  get isShared(): boolean {
    return this.#isShared
  }

  /** Undefined: the daemon's own. */
  foreignNamespaceOf(device: Device): string | undefined {
    return this.#moved.get(device)
  }

  /**
   * Whether a namespace is another than the daemon's, and sees only its own devices. `undefined`: of an ended process.
   */
  isForeign(namespace: string | undefined): boolean {
    return !this.#isShared && namespace !== this.#own
  }

  sees(namespace: string | undefined, device: Device): boolean {
    return this.#isShared || namespace === (this.#moved.get(device) ?? this.#own)
  }

  /** Whether a process sees a device. */
  processSees(pid: number, device: Device): boolean {
    return this.#isShared || this.sees(networkNamespaceOf(pid), device)
  }

  /** The devices as a namespace sees them. */
  devicesOf(namespace: string | undefined): Devices {
    this.returnOrphans()
    const devices = this.#devices
    if (this.#isShared) return devices
    return Object.create(devices, {
      all: { get: () => devices.all.filter(({ device }) => this.sees(namespace, device)) },
      atNode: {
        value: (node: number): DaemonDevice | undefined => {
          const found = devices.atNode(node)
          return found !== undefined && this.sees(namespace, found.device) ? found : undefined
        },
      },
    }) as Devices
  }

  /** `pids`: of the processes that have a session. Throws CallError EBUSY if one of them is in another namespace. */
  setShared(isShared: boolean, pids: Iterable<number>): void {
    if (isShared === this.#isShared) return
    for (const pid of pids) {
      const namespace = networkNamespaceOf(pid)
      if (namespace !== undefined && namespace !== this.#own)
        throw callError.EBUSY`process ${pid} uses the daemon from another network namespace`
    }
    this.#isShared = isShared
    if (isShared) this.#return(() => true)
  }

  /** Throws CallError EOPNOTSUPP in shared mode, and EIO if the device could not be made again. */
  *move(found: DaemonDevice, namespace: string): Generator<undefined, undefined> {
    if (namespace === (this.#moved.get(found.device) ?? this.#own)) return
    if (this.#isShared)
      throw callError.EOPNOTSUPP`network namespaces share the devices: first \`rdma system set netns exclusive\``
    yield* this.#remake(found, namespace)
  }

  added({ device }: DaemonDevice): void {
    if (this.#next !== undefined && this.#next !== this.#own) this.#moved.set(device, this.#next)
  }

  /** Moves devices whose namespace has ended back. */
  returnOrphans(): void {
    if (this.#isShared) return
    const namespaces = new Set(this.#devices.all.flatMap(({ device }) => this.#moved.get(device) ?? []))
    const now = performance.now()
    if (namespaces.size === 0 || now < this.#nextSearch) return
    this.#nextSearch = now + SEARCH_INTERVAL
    const living = livingNamespaces(namespaces)
    this.#return(namespace => !living.has(namespace))
  }

  #return(isOf: (namespace: string) => boolean): void {
    for (const found of [...this.#devices.all]) {
      const namespace = this.#moved.get(found.device)
      if (namespace !== undefined && isOf(namespace)) this.#run(this.#bringBack(found))
    }
  }

  *#bringBack(found: DaemonDevice): Generator<undefined, void> {
    try {
      yield* this.#remake(found, this.#own)
    } catch (error) {
      // Nobody has asked for this device, or for it alone.
      if (!(error instanceof CallError)) throw error
      console.error(`userdma daemon: ${error.message}`)
    }
  }

  *#remake({ spec }: DaemonDevice, namespace: string): Generator<undefined, void> {
    this.#devices.remove(spec.name)
    yield* this.#devices.removing()
    this.#next = namespace
    try {
      this.#devices.add(spec)
    } catch (error) {
      throw callError.EIO`device ${spec.name} is lost: ${error instanceof Error ? error.message : String(error)}`
    } finally {
      this.#next = undefined
    }
  }
}
