/*
 * Memory windows in the library (IBA 10.6.7): rights to part of a region that a work request gives and takes. Binding
 * and invalidating are operations of queue pairs (verbs/qp/operations.ts).
 */
import { Mw } from '../../spec/classes/mw.ts'
import { MwType } from '../../spec/enums.ts'
import type { Out } from '../../spec/schema/schema.ts'
import type { Words } from '../checks/options.ts'
import { invalidArgument } from '../error.ts'
import { checkOwn, type DeviceContext, type Named, type Plan, plan } from '../plan.ts'
import { defineVerbsClass, SHOWN, VerbsObject } from '../verbs-object.ts'
import type { Access, Region } from './region.ts'

/** A memory window (IBA 10.6.7). */
export interface MemoryWindow extends Disposable {
  /** Handle of the object, as calls and `device.handles` name it. */
  readonly handle: number
  /** Type 1, or 2 (2B). */
  readonly type: 1 | 2
  /** As of the last bind that was posted. */
  readonly rkey: number
  /** All attributes, as the class declares them. Throws RdmaError. */
  query(): Out<typeof Mw.methods.query>
  /** Destroys it; again it does nothing. Throws RdmaError EBUSY while it is used. */
  close(): void
}

/** What a bind gives: part of a region, with rights of a peer. */
export interface Binding {
  /** Registered with `window`. */
  readonly region: Region
  /** Default 0, and up to the end of the region. */
  readonly offset?: number
  /** Bytes; default: up to the end of the region. */
  readonly length?: number
  /** Default: remote reading and writing. */
  readonly access?: Omit<Access, 'localWrite' | 'window'>
}

export const bindingWords: Words<Binding> = { region: true, offset: true, length: true, access: true }

/** A window as `bind` sees it: the key changes. */
export class Window extends VerbsObject implements MemoryWindow {
  readonly type: 1 | 2
  rkey: number

  constructor(kit: DeviceContext, handle: number, type: 1 | 2, rkey: number) {
    super(kit, handle)
    this.type = type
    this.rkey = rkey
  }

  get cls(): typeof Mw {
    return Mw
  }

  query() {
    return this.kit.carrier.call(Mw, 'query', this.handle, {}).out
  }

  override [SHOWN]() {
    return { handle: this.handle, type: this.type, rkey: this.rkey }
  }
}
defineVerbsClass(Window, 'window', 'MemoryWindow')

export const windowPlan = (kit: DeviceContext, pd: Named, type: 1 | 2): Plan<MemoryWindow> => {
  checkOwn(kit, 'mw.create', 'pd', pd)
  if (type !== 1 && type !== 2) throw invalidArgument('mw.create', `type ${String(type)}: it is 1 or 2`)
  return plan(
    Mw,
    { pd: pd.handle, type: type === 1 ? MwType.values.TYPE_1 : MwType.values.TYPE_2 },
    ({ object: handle, out }) => new Window(kit, handle, type, out.rkey),
  )
}
