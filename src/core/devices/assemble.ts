/*
 * Builds the record of a device (R19, R20).
 */
import type { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import type { PortAttributes } from '../../spec/classes/device/port.ts'
import { type DeviceLimitName, type DeviceLimits, deviceLimit, limitOfClass } from '../../spec/device-limits.ts'
import type { ErrnoName } from '../../spec/errno.ts'
import type { ObjectClass, RecordOf } from '../../spec/schema/schema.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { compile } from '../dispatch/compile.ts'
import { classTable } from '../dispatch/lookup.ts'
import { createTaps, type Driver } from '../driver-contract.ts'
import { createMemoryTable } from '../memory/region-table.ts'
import { type Core, type CoreObject, type Device, Lifecycle, type Limit, type Port } from '../model.ts'
import { createLimit } from '../objects/limits.ts'
import { createGidTable } from './gids.ts'

/** A driver's description of a device, for `register`. */
export interface DeviceDescription<D = unknown> {
  /** Unique among registered devices: at most 63 letters, digits, `_`, `-`, `.`. */
  readonly name: string
  readonly driver: Driver<D>
  readonly state: D
  readonly attributes: RecordOf<typeof DeviceAttributes>
  readonly extended: RecordOf<typeof ExtendedDeviceAttributes>
  /** Port 1, 2, …; each gets an empty GID table of gidTblLen entries. */
  readonly ports: readonly RecordOf<typeof PortAttributes>[]
  readonly numCompVectors: number
  /**
   * Maximum number of objects of a class, by class name. Names separated by spaces (`'srq xrc_srq'`) share one maximum.
   * Other classes have no limit. Users have shares of a limit (core/objects/limits.ts).
   */
  readonly limits?: Readonly<Record<string, number>>
  /** Limits that the user has set. Those of objects are in `limits` already. */
  readonly set?: DeviceLimits | undefined
  /** With which creation fails beyond `limits`, as on the driver's adapters; default ENOMEM. */
  readonly fullErrno?: ErrnoName | undefined
  /** From which its first keys come; absent: the core's. */
  readonly random?: (() => number) | undefined
}

const fixedObject = (core: Core, cls: ObjectClass, handle: number, state: unknown): CoreObject => ({
  id: core.nextObject++,
  class: cls,
  context: undefined,
  handle,
  life: Lifecycle.LIVE,
  uses: 0,
  parents: [],
  state,
  events: undefined,
})

/** Of limits that are not of objects. AMD's adapters refuse the modify with EINVAL (kvcache-ai/Mooncake#3977). */
const otherLimits = {
  max_res_rd_atom: { errno: 'EINVAL', fullErrno: 'EINVAL', advice: 'give a smaller max_dest_rd_atomic' },
  max_pinned: { advice: 'register less, or deregister some' },
} as const

/** What the limit of these classes counts, and its name in a query. */
const subjectOf = (classes: readonly string[]): readonly [subject: string, name?: DeviceLimitName] => {
  const [name, other] = new Set(classes.map(limitOfClass))
  return name === undefined || other !== undefined
    ? [`objects of class ${classes.join(' or ')}`]
    : [deviceLimit(name).what, name]
}

const limitsOf = ({ limits = {}, set = {}, fullErrno = 'ENOMEM' }: DeviceDescription): ReadonlyMap<string, Limit> => {
  const ofObjects = Object.entries(limits).flatMap(([names, max]) => {
    const classes = names.split(' ')
    const [subject, name] = subjectOf(classes)
    const limit = createLimit(subject, max, { fullErrno, ...(name && { name }) })
    return classes.map(cls => [cls, limit] as const)
  })
  const others = (Object.keys(otherLimits) as (keyof typeof otherLimits)[]).flatMap(name => {
    const max = set[name]
    return max === undefined
      ? []
      : [[name, createLimit(deviceLimit(name).what, max, { name, ...otherLimits[name] })] as const]
  })
  return new Map([...ofObjects, ...others])
}

/** The driver, with the classes of core's clients whose needs it meets. */
const withClientClasses = (driver: Driver, { clientClasses }: Core): Driver => {
  const listed = new Set(driver.classes.map(({ class: cls }) => cls.name))
  const added = clientClasses.flatMap(({ needs, classes }) =>
    needs.some(need => driver[need] !== undefined) ? classes : [],
  )
  return { ...driver, classes: [...driver.classes, ...added.filter(({ class: cls }) => !listed.has(cls.name))] }
}

/** Throws an Error if the driver's table is invalid. `index`, `serial`: as in `Device`. */
export const assembleDevice = <D>(
  core: Core,
  description: DeviceDescription<D>,
  index: number,
  serial: number,
): Device<D> => {
  const { name, driver, attributes, ports } = description
  // Whatever may throw comes before `compile`, because its table would have to be released.
  const gidTables = ports.map(({ gidTblLen }, i) => createGidTable(i + 1, gidTblLen))
  const memory = createMemoryTable(description.random ?? core.random)
  const limits = limitsOf(description as DeviceDescription)
  const table = compile(core.tables, core.classes, withClientClasses(driver as Driver, core))
  const classByName = (className: string): ObjectClass | undefined => device.sharedTable.byName.get(className)?.class
  const fixed = new Map<string, CoreObject>()
  for (const { class: cls } of table.byName.values())
    if (cls.identity === 'fixed' && cls.name !== 'port')
      fixed.set(cls.name, fixedObject(core, cls, 0, description.state))
  const portCls = table.byName.get('port')?.class

  const device: Device<D> = {
    core,
    name,
    index,
    serial,
    driver,
    state: description.state,
    schema: {
      driverId: driver.id,
      linux: driver.linux,
      link: driver.link,
      classById: id => classTable(device.sharedTable, id)?.class,
      classByName,
    },
    ports:
      portCls === undefined
        ? []
        : ports.map((portAttributes, i): Port => {
            const port: Port = {
              number: i + 1,
              gids: gidTables[i]!,
              pkeys: new Uint16Array(Math.max(1, portAttributes.pkeyTblLen)).fill(DEFAULT_PKEY, 0, 1),
              attributes: portAttributes,
              object: fixedObject(core, portCls, i + 1, undefined),
            }
            port.object.state = port
            return port
          }),
    memory,
    attributes,
    extended: description.extended,
    numCompVectors: description.numCompVectors,
    limits,
    counts: {},
    contexts: new Set(),
    hooks: [],
    taps: createTaps(),
    eventHandlers: new Map(),
    fixedObjects: fixed,
    sharedTable: table,
    table,
    isAlive: true,
  }
  return device
}
