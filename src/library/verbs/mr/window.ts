/*
 * Memory windows (IBA 10.6.7). Work requests bind and invalidate them (`qp.bind`, `qp.invalidate`).
 */
import { Mw } from '../../../spec/classes/mw.ts'
import { MwType } from '../../../spec/enums.ts'
import type { Out } from '../../../spec/schema/schema.ts'
import type { KnownOptions } from '../arguments/options.ts'
import { formatValue, invalidArgument } from '../error.ts'
import { orElse } from '../objects/show.ts'
import { defineVerbsClass, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import { checkObject, type DeviceContext, type ObjectReference, type Plan, plan } from '../plan.ts'
import { type Access, peerAccessNames, type Region } from './region.ts'

/** A memory window (IBA 10.6.7). */
export interface MemoryWindow extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** 1, or 2 (type 2B). */
  readonly type: 1 | 2
  /**
   * rkey of the last posted bind, also if the bind has failed; before the first bind, the rkey of the allocation. After
   * a failed bind, `query()` returns the window's valid rkey. The next bind after a change of the queue pair's state
   * continues from that rkey.
   */
  readonly rkey: number
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Mw.methods.query>
  /** Deallocates the window; later calls do nothing. */
  close(): void
}

/** Arguments of a bind: part of a region, and the peer's rights. */
export interface BindInfo {
  /** A region with the right `mwBind`. */
  readonly region: Region
  /** Offset in the region in bytes; default 0. */
  readonly offset?: number | undefined
  /** Bytes; default: up to the end of the region. */
  readonly length?: number | undefined
  /** Default: remote read and write. */
  readonly access?: Omit<Access, 'localWrite' | 'mwBind' | 'relaxedOrdering'> | undefined
}

export const bindingOptionNames: KnownOptions<BindInfo> = { region: true, offset: true, length: true, access: true }
export const bindingAccessNames: KnownOptions<Required<BindInfo>['access']> = { ...peerAccessNames, zeroBased: 'flag' }

/** A queue pair that binds windows. */
interface Binder {
  /** See `BareQp` in src/library/verbs/qp/queue-pair.ts. */
  readonly stateChanges: number
  /** Outstanding sends. */
  readonly pending: number
}

/** A window whose rkey `bind` can set. */
export class Window extends VerbsObject implements MemoryWindow {
  readonly type: 1 | 2
  rkey: number
  /** The queue pair of the last posted bind, and its `stateChanges` at the post. */
  #binder: Binder | undefined = undefined
  #stateChanges = 0

  constructor(context: DeviceContext, handle: number, type: 1 | 2, rkey: number) {
    super(context, handle)
    this.type = type
    this.rkey = rkey
  }

  get cls(): typeof Mw {
    return Mw
  }

  query() {
    return this.context.carrier.call(Mw, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, type: this.type, rkey: this.rkey }
  }

  /**
   * The rkey that the next request of `qp` about the window must name. A bind that fails leaves the window's rkey as it
   * was, and flushes its queue pair. So when the queue pair of the last bind has no outstanding request, the device is
   * asked, unless `qp` is this queue pair and the program has not changed its state since.
   */
  static rkeyFor(window: Window, qp: Binder): number {
    const binder = window.#binder
    if (binder === undefined || binder.pending > 0) return window.rkey
    if (binder !== qp || window.#stateChanges !== binder.stateChanges)
      window.rkey = orElse(() => window.query().rkey, window.rkey)
    return window.rkey
  }

  /** Records that `qp` posts a bind that sets the rkey. */
  static setRkey(window: Window, qp: Binder, rkey: number): void {
    window.rkey = rkey
    window.#binder = qp
    window.#stateChanges = qp.stateChanges
  }
}
defineVerbsClass(Window, 'window', 'MemoryWindow')

/** Throws RdmaError EINVAL for an object that is no window of the library, a plain `{ handle }` for example. */
export const checkWindow = (call: string, window: MemoryWindow): Window => {
  if (window instanceof Window) return window
  throw invalidArgument(call, `window ${formatValue(window)} is not a memory window`, 'use one of pd.window()')
}

export const windowPlan = (context: DeviceContext, pd: ObjectReference, type: 1 | 2): Plan<MemoryWindow> => {
  checkObject(context, 'mw.create', 'pd', pd)
  if (type !== 1 && type !== 2) throw invalidArgument('mw.create', `type ${formatValue(type)} is not 1 or 2`)
  return plan(
    Mw,
    { pd: pd.handle, type: type === 1 ? MwType.values.TYPE_1 : MwType.values.TYPE_2 },
    ({ object: handle, out }) => new Window(context, handle, type, out.rkey),
  )
}
