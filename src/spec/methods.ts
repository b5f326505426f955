/*
 * The methods that programs call, by `class.method`, those of drivers with libraries of their own too.
 */
import { isQueuePairClass } from './classes/ids.ts'
import { classes } from './classes.ts'
import { Uar, Var } from './drivers/mlx5.ts'
import { Devx, DevxAsyncCmdFd, DevxAsyncEventFd, DevxObj, DevxUmem } from './drivers/mlx5-devx.ts'
import { FlowAction, FlowMatcher } from './drivers/mlx5-flow.ts'
import type { MethodRole, ObjectClass } from './schema/schema.ts'

const ofDrivers = [Uar, Var, Devx, DevxObj, DevxUmem, DevxAsyncCmdFd, DevxAsyncEventFd, FlowMatcher, FlowAction]

/** The classes whose methods programs call. */
export const calledClasses: readonly ObjectClass[] = [...classes, ...ofDrivers]

const roles: ReadonlyMap<string, MethodRole | undefined> = new Map(
  calledClasses.flatMap(cls => Object.entries(cls.methods).map(([name, { role }]) => [`${cls.name}.${name}`, role])),
)
/** The roles of the common methods, which classes of other drivers have too. */
const commonRoles: Readonly<Record<string, MethodRole>> = {
  create: 'creates',
  query: 'asks',
  modify: 'modifies',
  destroy: 'destroys',
}

/** The role of a method; undefined: it is unknown. */
export const roleOf = (name: string): MethodRole | undefined =>
  roles.get(name) ?? commonRoles[name.slice(name.lastIndexOf('.') + 1)]

/** Whether a method, `class.method`, is one of queue pairs. */
export const isOfQueuePair = (name: string): boolean => isQueuePairClass(name.slice(0, name.indexOf('.')))

/** Whether the method changes nothing of an object that its history would show. */
export const changesNothing = (role: MethodRole | undefined): boolean =>
  role === 'asks' || role === 'waits' || role === 'transfers' || role === 'prepares'
